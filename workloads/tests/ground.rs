//! Ground transition tables against the step function itself: the same states in the same order, the same
//! transitions, the same goals at the same steps.

use sim_explore::{Limits, Search};
use svm_model::MemoryKind;
use svm_model::explore::Explorer;
use svm_model::spec::MemoryModel;
use svm_model::text::{KERNELS, POLICIES};
use workloads::check::{CheckCase, NamedText};
use workloads::litmus::{BUILTIN, Litmus};

#[test]
fn tables_and_steps_give_the_same_search() {
    let mut compared = 0;
    for (_, file, body) in BUILTIN {
        for model in MemoryModel::ALL {
            for litmus in Litmus::parse(file, body).unwrap().variants() {
                compared += compare(&litmus.with_memory_model(model));
            }
        }
    }
    assert!(compared > 200, "only {compared} models compared");
}

/// Both searches, under every kernel and policy of the test; how many pairs there were.
fn compare(litmus: &Litmus) -> u32 {
    let limits = Limits { states: 1_000, ..Limits::default() };
    let search = || Search { limits, ..Search::default() };
    let named = |t: &svm_model::text::Text| NamedText {
        name: t.name.into(),
        file: t.file.into(),
        text: t.text.into(),
    };
    let mut compared = 0;
    for kernel in KERNELS.iter().filter(|k| litmus.kernels().iter().any(|n| n == k.name)) {
        let asked =
            |p: &&svm_model::text::Text| litmus.policies().is_none_or(|n| n.iter().any(|n| n == p.name));
        for policy in POLICIES.iter().filter(asked) {
            for sme_coherent in [false, true] {
                let (kernel, policy) = (named(kernel), named(policy));
                let part = if sme_coherent { "genoa" } else { "rome" };
                let case = CheckCase { litmus, policy: &policy, kernel: &kernel, part, sme_coherent };
                // A policy that does not fit the kernel or the part is another test's business.
                let Ok(machine) = case.machine(MemoryKind::Shadow) else { continue };
                let mut explorer = Explorer::new(&machine).unwrap();
                let by_table = explorer.run(search()).unwrap();
                let by_step = explorer.run_without_tables(search()).unwrap();
                let what =
                    format!("{}, {}, {}, {part}", litmus.name, litmus.memory_model().name(), policy.name);
                assert_eq!(by_table.states(), by_step.states(), "{what}");
                assert_eq!(by_table.transitions, by_step.transitions, "{what}");
                assert_eq!(by_table.reached, by_step.reached, "{what}");
                for i in by_table.ids() {
                    assert_eq!(by_table.state(i), by_step.state(i), "{what}: state {i}");
                }
                compared += 1;
            }
        }
    }
    compared
}
