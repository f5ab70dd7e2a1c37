//! What a check found, for reading: the verdict, what stands behind it, the stories, and what to type next.

use cache_model::event::EventKind;
use sim_explore::Bound;
use svm_model::spec::MemoryModel;
use svm_model::walk::{Cut, Walked};
use workloads::check::{Counterexample, Verdict};

use super::number::{grouped, plural};
use super::table::{pad, styled, wrap, wrap_command};
use super::{story, style};
use crate::args::Stories;
use crate::cases::{Checked, bound_name};

/// Under the verdict's word.
const INDENT: usize = 10;
/// Steps that two stories must share for the second to begin where they part.
const SHARED: usize = 4;

/// A story that was told.
#[derive(Debug)]
struct Told {
    /// Litmus test, policy and kernel.
    about: [String; 3],
    /// Who did what.
    signature: Vec<(String, String)>,
    part: String,
}

/// Writes one case after the other, and no story twice.
#[derive(Debug)]
pub(crate) struct Text {
    stories: Stories,
    width: usize,
    told: Vec<Told>,
    first: bool,
}

impl Text {
    /// Tells `stories`, in `width` columns.
    pub(crate) fn new(stories: Stories, width: usize) -> Text {
        Text { stories, width, told: Vec::new(), first: true }
    }

    /// One case.
    pub(crate) fn case(&mut self, checked: &Checked) -> String {
        let mut text = if self.first { String::new() } else { "\n".to_owned() };
        self.first = false;
        text.push_str(&self.headline(checked));
        let Some(first) = checked.report.events.first() else { return text };
        if self.stories == Stories::None {
            return text;
        }
        text.push('\n');
        let about = [checked.litmus.clone(), checked.policy.clone(), checked.kernel.clone()];
        let signature = story::signature(&first.story);
        if let Some(told) = self.told.iter().find(|t| t.about == about && t.signature == signature) {
            text.push_str(&format!("{}the same story as on {}\n", " ".repeat(INDENT), told.part));
            return text;
        }
        text.push_str(&self.told_story(first, None));
        if self.stories == Stories::All {
            for other in checked.report.events.iter().skip(1) {
                text.push('\n');
                text.push_str(&self.told_story(other, Some(first)));
            }
        }
        self.told.push(Told { about, signature, part: checked.part.clone() });
        text
    }

    fn told_story(&self, event: &Counterexample, after: Option<&Counterexample>) -> String {
        let from = after.map_or(0, |a| story::common(&a.story, &event.story));
        let from = if from >= SHARED { from } else { 0 };
        let mut text = match after {
            Some(_) => {
                let name = styled(event.event.name(), style::bad());
                let steps = plural(event.schedule.len(), "step");
                format!(" {name}, {steps}: {}\n", event.event.meaning())
            }
            None => String::new(),
        };
        text.push_str(&story::tell(&event.story, from, self.width));
        if event.story.iter().flat_map(|s| &s.events).all(|e| e.0.kind != event.event) {
            // A state is the event, not a step: a deadlock, or the start.
            text.push_str(&story::state_event(
                event.event.name(),
                event.event.meaning(),
                &event.story,
                self.width,
            ));
        }
        text
    }

    fn headline(&self, checked: &Checked) -> String {
        let report = &checked.report;
        let (word, colour) = match report.verdict {
            Verdict::Holds => ("HOLDS", style::good()),
            Verdict::Vacuous => ("VACUOUS", style::unsure()),
            Verdict::Violated => ("VIOLATED", style::bad()),
            Verdict::Bounded => ("BOUNDED", style::unsure()),
            Verdict::NotExhaustive => ("NOT EXHAUSTIVE", style::unsure()),
            Verdict::Refused => ("REFUSED", style::unsure()),
        };
        let defines: Vec<String> =
            checked.defines.iter().map(|(name, value)| format!(", {name} = {value}")).collect();
        let place = format!("on {} and {}{}", checked.kernel, checked.part, defines.concat());
        let named = checked.litmus.len() + checked.policy.len() + ", policy , ".len();
        // As wide as the rest, and never broken within a name.
        let gap = match INDENT + named + place.len() > self.width {
            true => format!("\n{}", " ".repeat(INDENT)),
            false => " ".to_owned(),
        };
        let mut text = format!(
            "{}{}, policy {},{gap}{place}\n",
            styled(&pad(&format!("{word} "), INDENT, false), colour),
            styled(&checked.litmus, style::strong()),
            styled(&checked.policy, style::strong()),
        );
        let mut say = |line: &str| {
            let line = wrap(line, self.width.saturating_sub(INDENT), 0);
            let line = line.replace('\n', &format!("\n{}", " ".repeat(INDENT)));
            text.push_str(&format!("{}{line}\n", " ".repeat(INDENT)));
        };
        say(&checked.description);
        match (report.verdict, report.events.first()) {
            (Verdict::Violated, Some(first)) => {
                let steps = plural(first.schedule.len(), "step");
                say(&format!("{}: {}", first.event.name(), first.event.meaning()));
                match (&report.walked, &report.switches) {
                    (Some(_), _) => say(&format!("a way there, perhaps not the shortest: {steps}")),
                    (None, Some(within)) => {
                        let switches = match within.states.len() - 1 {
                            0 => "without a switch".to_owned(),
                            1 => "with one switch, and none without".to_owned(),
                            n => format!("with {n} switches, and none with fewer"),
                        };
                        say(&format!("shortest way there {switches}: {steps}"));
                    }
                    (None, None) if first.event == EventKind::HungTask => {
                        say(&format!("shortest way to where no end is in reach: {steps}"));
                    }
                    (None, None) => say(&format!("shortest way there: {steps}")),
                }
                if let Some(token) = &checked.token {
                    say(&format!("again: sevsim replay {token}"));
                }
            }
            (Verdict::Refused, _) => say("the kernel does not ask the policy"),
            (Verdict::Holds, _) => say("no order of steps leads to an event"),
            (Verdict::Vacuous, _) => {
                say("no order of steps leads to an event, but none could: this proves nothing")
            }
            (Verdict::NotExhaustive, _) if report.walked.is_some() => {
                say("no walk met an event. Not exhaustive: this says nothing of the other orders of steps");
            }
            (Verdict::NotExhaustive, _) => {
                say(
                    "no event within these switches. Not exhaustive: this says nothing of the other orders of steps",
                );
            }
            (Verdict::Bounded | Verdict::Violated, _) => {
                say("no event met so far, which says nothing about the rest: not a proof");
            }
        }
        let others: Vec<String> = report
            .events
            .iter()
            .skip(1)
            .map(|e| format!("{} in {}", e.event.name(), plural(e.schedule.len(), "step")))
            .collect();
        if !others.is_empty() {
            say(&format!("also reachable: {}", others.join(", ")));
        }
        let searched = match report.bound {
            None if report.switches.as_ref().is_some_and(|s| !s.all) => "all within the switches".to_owned(),
            None if report.verdict == Verdict::Violated && !report.whole => {
                "then each event that is asked about was met".to_owned()
            }
            None => "all there are".to_owned(),
            Some(Bound::States(most)) if report.states > most + most / 20 => format!(
                "it went on from a checkpoint that had more than {} already: give it more --states",
                bound_name(Bound::States(most))
            ),
            Some(bound) => format!("then it met its bound: {}", bound_name(bound)),
        };
        if let Some(walked) = &report.walked {
            say(&in_words(walked));
        } else {
            say(&format!(
                "searched {}, {} transitions, {} steps deep: {searched}",
                plural(usize::try_from(report.states).unwrap_or(usize::MAX), "state"),
                grouped(report.transitions),
                report.depth
            ));
            if report.verdict == Verdict::Holds && !report.asked_ends {
                say(if report.switches.is_some() {
                    "whether each task can always end is not asked where switches are limited"
                } else {
                    "whether each task can always end was not asked: not all states are in memory"
                });
            }
            if report.permutations > 1 {
                say(&format!(
                    "searched up to {} permutations: states that differ only in the names of things treated alike \
                     count as one",
                    grouped(report.permutations as u64)
                ));
            }
        }
        if let Some(within) = &report.switches {
            let each = within.states.iter().map(|n| grouped(u64::from(*n))).collect::<Vec<_>>().join(", ");
            let end = if within.all { "; with the last no order of steps was left out" } else { "" };
            say(&format!("states within 0, 1, ... switches: {each}{end}"));
        }
        if matches!(report.verdict, Verdict::Holds | Verdict::Vacuous) {
            for (twin, _) in report.sometimes.iter().filter(|(_, at)| at.is_none()) {
                say(&format!("never happened on any way: {}", twin.meaning()));
            }
        }
        if report.memory_model == MemoryModel::Tso {
            let (n, all) = (report.store_buffer, report.verdict == Verdict::Holds);
            let all = if all { ": no order of steps has more" } else { "" };
            say(&format!("memory model: tso, with {n} unseen stores a pCPU at most{all}"));
        }
        if !report.assumptions.is_empty() {
            say(&format!("taken as given: {}", report.assumptions.join(", ")));
        }
        text
    }
}

/// How far walks went.
fn in_words(walked: &Walked) -> String {
    let n = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let end = match walked.cut {
        None => "",
        Some(Cut::Time) => "; then the time was over",
        Some(Cut::Interrupted) => "; then it was interrupted",
    };
    format!(
        "{}, {} of them until nobody could go on, {} in all, {} the longest{end}",
        plural(n(walked.walks), "random walk"),
        grouped(walked.ended),
        plural(n(walked.steps), "step"),
        grouped(u64::from(walked.longest)),
    )
}

/// What to type after a violation, in lines of at most `width` columns.
pub(crate) fn next_steps(first: &Checked, saved: Option<&str>, stories: Stories, width: usize) -> String {
    const LABEL: usize = "next:  ".len();
    let mut lines: Vec<String> = Vec::new();
    match saved {
        Some(path) => lines.push(format!("sevsim replay {path}")),
        None => {
            lines.push(format!("{} --save-schedule FILE", first.command()));
        }
    }
    if stories != Stories::All && first.report.events.len() > 1 {
        lines.push(format!("{} --stories all", first.command()));
    } else if stories == Stories::None {
        lines.push(first.command());
    }
    let lines: Vec<String> =
        lines.iter().map(|line| wrap_command(line, width.saturating_sub(LABEL), 4)).collect();
    let lines = lines.join("\n").replace('\n', &format!("\n{}", " ".repeat(LABEL)));
    format!("\n{}  {lines}\n", styled("next:", style::strong()))
}
