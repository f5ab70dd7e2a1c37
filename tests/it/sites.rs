//! The table at the end of `docs/SITES.md`: each switch of linux-6.17 that is on is turned off, and the tests of the
//! corpus that object are named. `SNAPSHOTS=overwrite cargo test --test it` writes it anew.

use std::fmt::Write as _;

use cache_model::part::Part;
use sim_explore::Limits;
use svm_model::MemoryKind;
use svm_model::text::{self, KERNELS, POLICIES, Text};
use workloads::check::{CheckCase, NamedText, Verdict, program_digest};
use workloads::litmus::{BUILTIN, Expected, Litmus};

const KERNEL: &str = "linux-6.17";

/// What stands above the table.
const MARK: &str = "<!-- each switch turned off -->\n";

/// Policies under which the kernel as it is should be safe: what goes wrong without a flush is not theirs. A file that
/// is about neither is asked under its own.
const SAFE: [&str; 2] = ["sticky-wbnoinvd", "all-wbinvd"];

fn named(all: &[Text], name: &str) -> NamedText {
    let t = all.iter().find(|t| t.name == name).expect("a built-in text");
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

/// The kernel's switches that are on, those of the text that it includes too.
fn switches() -> Vec<String> {
    let sites = text::find("sev-6.17", "").expect("the sites of 6.17").text;
    let on = |line: &str| {
        let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        // Without a rule that skips a flush there are only more of them.
        (value == "1" && !name.contains("_SKIPS_")).then(|| name.to_owned())
    };
    sites.lines().filter_map(on).collect()
}

/// A case that the corpus expects to hold.
struct Held {
    litmus: Litmus,
    policy: NamedText,
    part: String,
    sme_coherent: bool,
    program: u64,
}

impl Held {
    fn case<'a>(&'a self, litmus: &'a Litmus, kernel: &'a NamedText) -> CheckCase<'a> {
        CheckCase { litmus, policy: &self.policy, kernel, part: &self.part, sme_coherent: self.sme_coherent }
    }
}

fn held(kernel: &NamedText) -> Vec<Held> {
    let mut all = Vec::new();
    for (_, file, text) in BUILTIN {
        for litmus in Litmus::parse(file, text).expect("a built-in test").variants() {
            if litmus.kernels().iter().all(|k| k != KERNEL) {
                continue;
            }
            let listed = |name: &&str| litmus.policies().is_none_or(|p| p.iter().any(|p| p == name));
            let mut policies: Vec<String> =
                SAFE.iter().filter(|p| listed(p)).map(|p| (*p).to_owned()).collect();
            if policies.is_empty() {
                policies = litmus.policies().unwrap_or_default().to_vec();
            }
            for part in litmus.parts().to_vec() {
                for name in &policies {
                    let expected = litmus.expected(name, KERNEL, &part);
                    if expected.is_none_or(|e| e.verdict != Expected::Holds) {
                        continue;
                    }
                    let sme_coherent = Part::builtin(&part).expect("a built-in part").sme_coherent();
                    let policy = named(POLICIES, name);
                    let mut held =
                        Held { litmus: litmus.clone(), policy, part: part.clone(), sme_coherent, program: 0 };
                    let machine = held.case(&held.litmus, kernel).machine(MemoryKind::Shadow);
                    held.program = program_digest(&machine.expect("it compiles"));
                    all.push(held);
                }
            }
        }
    }
    all
}

/// The files that object when a switch is off, each with its event, and how many were asked in whose program it is.
fn objections(held: &[Held], kernel: &NamedText, switch: &str) -> (Vec<String>, usize) {
    let (mut files, mut asked): (Vec<(String, String)>, Vec<String>) = (Vec::new(), Vec::new());
    for h in held {
        let file = h.litmus.name.split(':').next().unwrap_or_default().to_owned();
        if files.iter().any(|f| f.0 == file) {
            continue;
        }
        let without = h.litmus.clone().with_define(switch, 0);
        let case = h.case(&without, kernel);
        let machine = case.machine(MemoryKind::Shadow).expect("it compiles");
        if program_digest(&machine) == h.program {
            continue;
        }
        let report = case.run(Limits::default(), None, None).expect("it runs");
        assert_ne!(report.verdict, Verdict::Bounded, "{file}");
        if !asked.contains(&file) {
            asked.push(file.clone());
        }
        if let Some(first) = report.events.first() {
            files.push((file, first.event.name().to_owned()));
        }
    }
    (files.into_iter().map(|(file, event)| format!("`{file}` ({event})")).collect(), asked.len())
}

/// The text of `docs/SITES.md` with its table made anew.
pub(crate) fn with_each_switch(text: &str) -> String {
    let (above, _) = text.split_once(MARK).expect("a mark above the table");
    let kernel = named(KERNELS, KERNEL);
    let held = held(&kernel);
    let mut table =
        "| switch | files in whose program it is | files that object to its absence |\n|---|---|---|\n"
            .to_owned();
    for switch in switches() {
        let (files, asked) = objections(&held, &kernel, &switch);
        let files = if files.is_empty() {
            // The tables above have to say why.
            let why = above.lines().find(|l| l.contains(&format!("`{switch}`")) && l.contains("redundant"));
            assert!(why.is_some(), "no file objects when {switch} is off, and SITES.md does not say why");
            "none: see above".to_owned()
        } else {
            files.join(", ")
        };
        writeln!(table, "| `{switch}` | {asked} | {files} |").expect("a string takes all");
    }
    format!("{above}{MARK}{table}")
}
