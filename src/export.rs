//! `sevsim export`: a litmus test's model in the language of another checker.

use svm_model::MemoryKind;
use svm_model::export::{ExportError, Relation, Size, murphi, promela};
use workloads::check::CheckCase;

use crate::args::{AboutArgs, ExportArgs, Format, FormatArg, Language, Switch};
use crate::cases::Cases;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::report::number::{grouped, plural};

/// Writes the model on standard output.
pub(crate) fn export(args: &ExportArgs, out: &mut Output) -> Result<Exit, Failure> {
    let size = Size::default();
    let about = AboutArgs {
        kernel: args.kernel.clone(),
        parts: args.part.iter().cloned().collect(),
        memory_model: args.memory_model,
        defines: args.defines.clone(),
        states: u32::try_from(size.states).unwrap_or(u32::MAX),
        depth: None,
        memory: u64::MAX,
        symmetry: Switch::Off,
        partial_order: Switch::Off,
        format: FormatArg { format: Format::Table },
    };
    let policies: Vec<String> = args.policy.iter().cloned().collect();
    let cases = Cases::of(std::slice::from_ref(&args.litmus), &policies, &about)?;
    let mut each = cases.each();
    let (Some(case), None) = (each.next(), each.next()) else {
        let cases = plural(cases.len(), "case");
        return Err(Failure::input(format!(
            "{}: {cases}, and an export is one model: choose by --policy, --kernel, --part, or the variant as FILE:VARIANT",
            args.litmus
        )));
    };
    let machine = case.machine(MemoryKind::Shadow).map_err(Failure::check)?;
    let relation = Relation::of(&machine, size).map_err(|error| Failure {
        exit: match error {
            ExportError::States(_) | ExportError::Rules(_) => Exit::Inconclusive,
            ExportError::Wide(_) | ExportError::Runaway | ExportError::Timed => Exit::Usage,
        },
        message: format!(
            "{}: {error}; a smaller test, or fewer CPUs, pages or vCPUs in it",
            case.litmus.file
        ),
    })?;
    let head = head(args, &case, &relation, &machine.spec().assumptions.names());
    out.print(&match args.to {
        Language::Murphi => murphi::text(&relation, &head),
        Language::Promela => promela::text(&relation, &head),
    });
    Ok(Exit::Done)
}

/// What stands above the model.
fn head(args: &ExportArgs, case: &CheckCase<'_>, relation: &Relation, given: &[&str]) -> String {
    let model = case.litmus.memory_model().name();
    let defines: String = args.defines.iter().map(|(name, value)| format!(" -D {name}={value}")).collect();
    let (language, run, all) = match args.to {
        Language::Murphi => (
            "murphi",
            "rumur --deadlock-detection off --output m.c THIS && gcc -std=c11 -O3 -march=native m.c -o m -lpthread && ./m",
            "const events: 0",
        ),
        Language::Promela => (
            "promela",
            "spin -a THIS && gcc -O2 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -m1000000",
            "spin -DALL_STATES",
        ),
    };
    let events: Vec<&str> = relation.events.iter().map(|e| e.name()).collect();
    let events = if events.is_empty() { "none".to_owned() } else { events.join(", ") };
    let given =
        if given.is_empty() { String::new() } else { format!("taken as given: {}\n", given.join(", ")) };
    format!(
        "The model of litmus test {litmus} with policy {policy}, on kernel {kernel} and part {part}.\n\
         made by:        sevsim export {litmus} --policy {policy} --kernel {kernel} --part {part} --memory-model {model}{defines} --to {language}\n\
         sevsim {version}:   {states} states, {transitions} transitions, events: {events}\n\
         {given}\
         to run it:      {run}\n\
         to count all:   the same with `{all}`: an event is then no error, and every state is reached\n\
         not asked:      hung-task, which is of cycles, and not of a state or a step\n\
         \n\
         Each rule is what the step function of sevsim did for some values of the slots that it reads. The error `met before`\n\
         says that a state was reached which sevsim's search has not met: a bug of its. What this checks and what it does\n\
         not: docs/EXPLORER.md, \"A second opinion\".",
        litmus = case.litmus.name,
        policy = case.policy.name,
        kernel = case.kernel.name,
        part = case.part,
        version = env!("CARGO_PKG_VERSION"),
        states = grouped(relation.states as u64),
        transitions = grouped(relation.transitions),
    )
}
