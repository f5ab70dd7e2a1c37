//! `sevsim replay`: follows a saved schedule step by step, and says whether it shows what it claims.

use std::io::Read as _;

use cache_model::event::EventKind;
use owo_colors::Style;
use serde::Deserialize;
use svm_model::Machine;
use svm_model::explore::{Explorer, ScheduledStep};
use svm_model::story::StoryStep;
use workloads::check::CheckCase;
use workloads::schedule::{ScheduleFile, program_digest};

use crate::args::{Format, ReplayArgs};
use crate::exit::{Exit, Failure};
use crate::names::{self, Kind};
use crate::output::Output;
use crate::report::json::{self, Replay, Step};
use crate::report::number::plural;
use crate::report::table::styled;
use crate::report::verdicts::csv_line;
use crate::report::{story, style};
use crate::token::{self, Token};

/// Bytes of a schedule at most.
const BYTES: u64 = 256 << 20;

/// What of a line of `check --format json` is needed.
#[derive(Deserialize)]
struct CheckLine {
    schedule: Option<String>,
}

/// Does it.
pub(crate) fn replay(args: &ReplayArgs, out: &mut Output) -> Result<Exit, Failure> {
    if token::is_token(&args.file) {
        return replay_token(args, out);
    }
    let (name, text, json) = read(&args.file)?;
    // In JSON, a schedule has lines of its own: they are not the file's.
    let place = |line: usize| match (json, line) {
        (true, 0) => format!("{name}: schedule"),
        (true, line) => format!("{name}: line {line} of the schedule"),
        (false, 0) => name.clone(),
        (false, line) => format!("{name}:{line}"),
    };
    let wrong = |(line, message): (usize, String)| Failure::input(format!("{}: {message}", place(line)));
    let file = ScheduleFile::parse(&text).map_err(wrong)?;
    let model = args.memory_model.map_or(file.memory_model, |m| m.model());
    let litmus = names::litmus_one(&file.litmus)?.with_memory_model(model);
    let litmus = file.defines.iter().fold(litmus, |test, d| test.with_define(&d.0, d.1));
    let policy = names::find(Kind::Policy, &file.policy)?;
    let kernel = names::find(Kind::Kernel, &file.kernel)?;
    let part = names::part(&file.part)?;
    let case = CheckCase {
        litmus: &litmus,
        policy: &policy,
        kernel: &kernel,
        part: &file.part,
        sme_coherent: part.sme_coherent(),
    };
    let machine = case.machine_to_replay().map_err(Failure::check)?;
    if file.program.is_some_and(|digest| digest != program_digest(&machine)) {
        out.log(&format!(
            "warning: {name} was made for another text of {}, {} or {}: its steps may mean something else now",
            file.policy, file.kernel, file.litmus
        ));
    }
    let steps = file.steps_for(&machine).map_err(wrong)?;
    let told = machine.tell_of(file.event, &steps).map_err(|e| {
        let line = e.step.checked_sub(1).and_then(|i| file.steps.get(i)).map_or(0, |s| s.0);
        wrong((line, format!("step {}: {}", e.step, e.message)))
    })?;
    Ok(show(&file, &machine, (&steps, &told), args.format.format, out))
}

/// Follows the schedule of a token.
fn replay_token(args: &ReplayArgs, out: &mut Output) -> Result<Exit, Failure> {
    let token = Token::parse(&args.file)?;
    if args.memory_model.is_some_and(|m| m.model() != token.memory_model) {
        return Err(Failure::input("--memory-model: a token says itself which it is, and fits no other"));
    }
    let [litmus, policy, kernel, part] = &token.names;
    let test = names::litmus_one(litmus)?.with_memory_model(token.memory_model);
    let (policy_text, kernel_text) = (names::find(Kind::Policy, policy)?, names::find(Kind::Kernel, kernel)?);
    let sme_coherent = names::part(part)?.sme_coherent();
    let case = CheckCase { litmus: &test, policy: &policy_text, kernel: &kernel_text, part, sme_coherent };
    let machine = case.machine_to_replay().map_err(Failure::check)?;
    let other = || {
        Failure::input(format!(
            "the token was made for another text of {policy}, {kernel} or {litmus} than is here"
        ))
    };
    if program_digest(&machine).to_le_bytes()[..4] != token.digest.to_le_bytes() {
        return Err(other());
    }
    let mut explorer = Explorer::new(&machine).ok_or_else(other)?;
    let steps = explorer.unpacked(&token.schedule, token.steps).ok_or_else(other)?;
    let told = machine.tell_of(token.event, &steps).map_err(|_| other())?;
    let file = ScheduleFile {
        litmus: litmus.clone(),
        policy: policy.clone(),
        kernel: kernel.clone(),
        part: part.clone(),
        memory_model: token.memory_model,
        defines: Vec::new(),
        program: None,
        event: token.event,
        steps: Vec::new(),
    };
    Ok(show(&file, &machine, (&steps, &told), args.format.format, out))
}

/// Prints what was followed, and says whether it shows its event.
fn show(
    file: &ScheduleFile,
    machine: &Machine,
    (steps, told): (&[ScheduledStep], &[StoryStep]),
    format: Format,
    out: &mut Output,
) -> Exit {
    let shown = told.iter().any(|s| s.events.iter().any(|e| e.0.kind == file.event))
        || (file.event == EventKind::Deadlock
            && Explorer::new(machine).is_some_and(|mut explorer| explorer.deadlocked_after(steps)));
    match format {
        Format::Table => out.print(&in_words(file, told, shown, out.width())),
        Format::Json => out.print(&json::line(&Replay {
            schema: "sevsim.replay/1",
            litmus: &file.litmus,
            policy: &file.policy,
            kernel: &file.kernel,
            part: &file.part,
            event: file.event.name(),
            shown,
            events: told.iter().flat_map(|s| &s.events).map(|e| e.0.kind.name()).collect(),
            trace: told.iter().map(Step::of).collect(),
        })),
        Format::Csv => out.print(&in_csv(told)),
    }
    if shown { Exit::Done } else { Exit::Violated }
}

/// The schedule's text, what to call its file, and whether it stood in JSON.
fn read(path: &str) -> Result<(String, String, bool), Failure> {
    let (name, text) = if path == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(BYTES).read_to_string(&mut text);
        read.map_err(|e| Failure::input(format!("standard input: cannot be read: {e}")))?;
        ("standard input".to_owned(), text)
    } else {
        (path.to_owned(), names::read(path).map_err(Failure::input)?)
    };
    if !text.trim_start().starts_with('{') {
        return Ok((name, text, false));
    }
    for (n, line) in (1usize..).zip(text.lines()).filter(|(_, l)| !l.trim().is_empty()) {
        let line: CheckLine = serde_json::from_str(line)
            .map_err(|e| Failure::input(format!("{name}:{n}: no JSON of `check`: {e}")))?;
        if let Some(schedule) = line.schedule {
            return Ok((name, schedule, true));
        }
    }
    Err(Failure::input(format!("{name}: no line has a schedule: nothing was violated")))
}

fn in_words(file: &ScheduleFile, told: &[StoryStep], shown: bool, width: usize) -> String {
    let mut text = format!(
        "{}, policy {}, on {} and {}: {}\n\n",
        styled(&file.litmus, style::strong()),
        styled(&file.policy, style::strong()),
        file.kernel,
        file.part,
        plural(told.len(), "step")
    );
    text.push_str(&story::tell(told, 0, width));
    let (word, colour): (&str, Style) =
        if shown { ("shows", style::bad()) } else { ("does not show", style::unsure()) };
    let event = file.event;
    text.push_str(&format!(
        "\nthe schedule {} {}: {}\n",
        styled(word, colour),
        event.name(),
        event.meaning()
    ));
    text
}

fn in_csv(told: &[StoryStep]) -> String {
    let mut text = "step,actor,pcpu,file,line,text,effect,events,function\n".to_owned();
    for s in told {
        text.push_str(&csv_line(&[
            s.step.to_string(),
            s.actor.clone(),
            s.pcpu.map_or(String::new(), |p| p.to_string()),
            s.file.clone().unwrap_or_default(),
            s.line.map_or(String::new(), |l| l.to_string()),
            s.text.clone(),
            s.effect.clone(),
            s.events.iter().map(|e| e.0.kind.name()).collect::<Vec<_>>().join(" "),
            s.function.clone().unwrap_or_default(),
        ]));
    }
    text
}
