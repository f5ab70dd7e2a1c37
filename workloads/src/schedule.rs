//! Schedules as text, to be saved and replayed; and which program they were made for.

use std::iter::Peekable;
use std::ops::RangeFrom;

use cache_model::event::EventKind;
use svm_model::Machine;
use svm_model::explore::ScheduledStep;
use svm_model::spec::MemoryModel;

use crate::check::CheckCase;

/// Writes a schedule as text, to be replayed: a header, then one step a line.
#[must_use]
pub fn schedule_text(
    case: &CheckCase<'_>,
    machine: &Machine,
    event: EventKind,
    steps: &[ScheduledStep],
) -> String {
    let defines: Vec<String> =
        case.litmus.defined().iter().map(|(name, value)| format!("define {name} {value}\n")).collect();
    let mut text = format!(
        "sevsim-schedule 1\nlitmus {}\npolicy {}\nkernel {}\npart {}\n{}{}program {:016x}\nevent {}\nsteps\n",
        case.litmus.name,
        case.policy.name,
        case.kernel.name,
        case.part,
        match case.litmus.memory_model() {
            MemoryModel::Sc => "",
            MemoryModel::Tso => "memory-model tso\n",
        },
        defines.concat(),
        program_digest(machine),
        event.name()
    );
    for step in steps {
        text.push_str(&machine.actor_name(step.actor));
        for answer in &step.answers {
            text.push_str(&format!(" {answer}"));
        }
        text.push('\n');
    }
    text
}

/// A digest of what the texts were compiled to: a schedule made for another program says so.
#[must_use]
pub fn program_digest(machine: &Machine) -> u64 {
    let mix = |digest: u64, byte: u8| (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let ops = machine.code().ops.iter().map(|op| format!("{op:?}\n"));
    ops.fold(0xcbf2_9ce4_8422_2325, |digest, op| op.bytes().fold(digest, mix))
}

/// A schedule as read from a file, before its model is built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduleFile {
    /// Litmus test: a built-in name, or a path.
    pub litmus: String,
    /// Policy.
    pub policy: String,
    /// Kernel.
    pub kernel: String,
    /// Part.
    pub part: String,
    /// The order in which accesses are seen: a line `memory-model tso`, or none.
    pub memory_model: MemoryModel,
    /// Values of `#define`s that the check was given: lines `define NAME NUMBER`.
    pub defines: Vec<(String, i64)>,
    /// [`program_digest`] of the program that it was made for; none in older files.
    pub program: Option<u64>,
    /// Event that it shows.
    pub event: EventKind,
    /// Line of the file, actor and answers of each step.
    pub steps: Vec<(usize, String, Vec<u32>)>,
}

/// The lines of a schedule, numbered from 1.
type Lines<'t> = Peekable<std::iter::Zip<RangeFrom<usize>, std::str::Lines<'t>>>;

impl ScheduleFile {
    /// Reads a schedule.
    ///
    /// # Errors
    ///
    /// Line and message.
    pub fn parse(text: &str) -> Result<ScheduleFile, (usize, String)> {
        let mut lines = (1usize..).zip(text.lines()).peekable();
        match lines.next() {
            Some((_, "sevsim-schedule 1")) => {}
            _ => return Err((1, "expected `sevsim-schedule 1` on the first line".to_owned())),
        }
        let field = |lines: &mut Lines<'_>, name: &str| match lines.next() {
            Some((n, line)) => match line.strip_prefix(name).and_then(|r| r.strip_prefix(' ')) {
                Some(value) => Ok((n, value.to_owned())),
                None => Err((n, format!("expected `{name} NAME`, found `{line}`"))),
            },
            None => Err((0, format!("the file ends where `{name} NAME` should be"))),
        };
        let (litmus, policy) = (field(&mut lines, "litmus")?.1, field(&mut lines, "policy")?.1);
        let (kernel, part) = (field(&mut lines, "kernel")?.1, field(&mut lines, "part")?.1);
        let mut memory_model = MemoryModel::Sc;
        if lines.peek().is_some_and(|(_, line)| line.starts_with("memory-model ")) {
            let (n, name) = field(&mut lines, "memory-model")?;
            memory_model = MemoryModel::from_name(&name)
                .ok_or((n, format!("unknown memory model `{name}`: known are sc, tso")))?;
        }
        let mut defines = Vec::new();
        while lines.peek().is_some_and(|(_, line)| line.starts_with("define ")) {
            let (n, define) = field(&mut lines, "define")?;
            let value = define.split_once(' ').and_then(|(name, v)| Some((name.to_owned(), v.parse().ok()?)));
            defines
                .push(value.ok_or((n, format!("expected `define NAME NUMBER`, found `define {define}`")))?);
        }
        let mut program = None;
        if lines.peek().is_some_and(|(_, line)| line.starts_with("program ")) {
            let (n, digest) = field(&mut lines, "program")?;
            let number = u64::from_str_radix(&digest, 16);
            program = Some(number.map_err(|e| (n, format!("`{digest}` is no digest in hexadecimal: {e}")))?);
        }
        let (n, event) = field(&mut lines, "event")?;
        let event = EventKind::from_name(&event).ok_or((n, format!("unknown event `{event}`")))?;
        match lines.next() {
            Some((_, "steps")) => {}
            Some((n, line)) => return Err((n, format!("expected `steps`, found `{line}`"))),
            None => return Err((0, "the file ends where `steps` should be".to_owned())),
        }
        let mut steps = Vec::new();
        for (n, line) in lines {
            let mut words = line.split_whitespace();
            let Some(actor) = words.next() else { continue };
            let answers: Result<Vec<u32>, _> = words.map(str::parse).collect();
            let answers = answers.map_err(|e| (n, format!("a choice is not a number: {e}")))?;
            steps.push((n, actor.to_owned(), answers));
        }
        Ok(ScheduleFile { litmus, policy, kernel, part, memory_model, defines, program, event, steps })
    }

    /// The steps for a machine.
    ///
    /// # Errors
    ///
    /// Line and name of an actor that the machine does not have.
    pub fn steps_for(&self, machine: &Machine) -> Result<Vec<ScheduledStep>, (usize, String)> {
        self.steps
            .iter()
            .map(|(n, actor, answers)| match machine.actor_named(actor) {
                Some(actor) => Ok(ScheduledStep { actor, answers: answers.clone() }),
                None => Err((*n, format!("no actor `{actor}` in this model"))),
            })
            .collect()
    }
}
