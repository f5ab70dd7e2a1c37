//! Who stands in which column of a story.

use std::collections::BTreeMap;

use svm_model::story::StoryStep;

/// Columns of the terminal that a column of a story needs at least.
pub(super) const NARROW: usize = 24;
/// Columns of the terminal between two columns.
const BAR: usize = 3;

/// Who has a column: a pCPU, and whoever runs on it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    /// What runs on no pCPU stands right of what does.
    pcpu: Option<u16>,
    actor: String,
}

/// One column.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// Its name.
    pub(super) title: String,
    /// The one who needs not be named at each step.
    pub(super) actor: Option<String>,
    /// Columns of the terminal.
    pub(super) width: usize,
}

/// The columns of a story.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) list: Vec<Lane>,
    /// The column of each step.
    pub(super) of: Vec<usize>,
}

/// A task, or a device, rather than what happens to it or on its pCPU.
fn is_task(step: &StoryStep) -> bool {
    step.pcpu.is_some() && !step.actor.contains(':')
}

/// The column of each step: of its pCPU and actor. What an interrupt or the scheduler does stands where the task
/// stands that it happens to; what caches do, where the pCPU stands that they belong to.
fn keys(steps: &[StoryStep]) -> Vec<Key> {
    let mut last: BTreeMap<u16, String> = BTreeMap::new();
    for step in steps.iter().rev().filter(|s| is_task(s)) {
        last.extend(step.pcpu.map(|p| (p, step.actor.clone())));
    }
    let mut keys = Vec::new();
    for step in steps {
        if is_task(step) {
            last.extend(step.pcpu.map(|p| (p, step.actor.clone())));
        }
        let pcpu = step.pcpu.or(step.near);
        let task = pcpu.and_then(|p| last.get(&p)).filter(|_| step.pcpu.is_some() || step.actor == "cache");
        keys.push(match (task, step.actor.as_str()) {
            (Some(task), _) => Key { pcpu, actor: task.clone() },
            (None, "cache") => Key { pcpu: None, actor: "caches".to_owned() },
            (None, "world") => Key { pcpu, actor: "new owner".to_owned() },
            (None, actor) => {
                let actor = actor.strip_prefix("irq:").map_or(actor, |_| "interrupts");
                Key { pcpu, actor: actor.strip_prefix("preempt:").unwrap_or(actor).to_owned() }
            }
        });
    }
    keys
}

impl Lanes {
    /// Of the steps from the one with index `from` on, in `room` columns of the terminal: one for each pCPU and actor; if those are too narrow one for each pCPU; if
    /// even those are, none: a list.
    pub(super) fn of(story: &[StoryStep], from: usize, room: usize) -> Lanes {
        let keys = keys(story).split_off(from.min(story.len()));
        Lanes::fitting(&keys, room, |key| key.clone())
            .or_else(|| {
                let one = |key: &Key| match key.pcpu {
                    Some(_) => Key { actor: String::new(), ..key.clone() },
                    None => key.clone(),
                };
                Lanes::fitting(&keys, room, one)
            })
            .unwrap_or_else(|| Lanes {
                list: vec![Lane { title: String::new(), actor: None, width: room }],
                of: vec![0; keys.len()],
            })
    }

    fn fitting(keys: &[Key], room: usize, merged: impl Fn(&Key) -> Key) -> Option<Lanes> {
        let merge = |key: &Key| {
            let key = merged(key);
            (key.pcpu.is_none(), key)
        };
        let mut order: Vec<_> = keys.iter().map(merge).collect();
        order.sort();
        order.dedup();
        let width = (room + BAR).checked_div(order.len())?.saturating_sub(BAR);
        if width < NARROW {
            return None;
        }
        let lane = |(_, key): &(bool, Key)| {
            let same = keys.iter().filter(|k| merged(k) == *key);
            let mut actors: Vec<&str> = same.map(|k| k.actor.as_str()).collect();
            actors.sort_unstable();
            actors.dedup();
            let title = match key.pcpu {
                Some(pcpu) => format!("CPU{pcpu} ({})", actors.join(", ")),
                None => key.actor.clone(),
            };
            let actor = (actors.len() == 1).then(|| actors.concat());
            Lane { title, actor, width }
        };
        let of = keys.iter().map(|k| order.iter().position(|o| *o == merge(k)).unwrap_or(0)).collect();
        Some(Lanes { list: order.iter().map(lane).collect(), of })
    }

    /// Whether there is but one column, for all.
    pub(super) fn is_list(&self) -> bool {
        self.list.len() == 1 && self.list.iter().all(|l| l.title.is_empty())
    }
}
