//! The kernels and policies that come with the project compile.

use std::fs;
use std::path::Path;

use crate::ast::Object;
use crate::{Code, Config, Included, Role, Source, Type, VmTables, compile};

/// Every policy's text, by file name.
fn policies() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut list: Vec<_> = fs::read_dir(folder)
        .expect("the policies' folder")
        .map(|f| f.expect("a file").path())
        .filter(|p| p.extension().is_some_and(|e| e == "c"))
        .map(|p| {
            let name = p.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&p).expect("text"))
        })
        .collect();
    list.sort();
    list
}

/// Finds what a kernel's text includes.
pub(super) fn find(name: &str, _: &str) -> Result<Included, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels").join(name);
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    Ok(Included { file: name.to_owned(), text })
}

pub(super) fn kernel() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/linux-6.17.c");
    fs::read_to_string(path).expect("the kernel's text")
}

fn build(policy: &str, name: &str, pcpus: u16, word_bits: u8) -> Code {
    let litmus = "void guest(void) { guest_write(P); }\nvoid reclaim(void) { madvise_dontneed(vm0, P); }\n";
    let kernel = kernel();
    let sources = [
        Source { file: "linux-6.17.c", text: &kernel, role: Role::Kernel },
        Source { file: name, text: policy, role: Role::Policy },
        Source { file: "test.litmus", text: litmus, role: Role::Litmus },
    ];
    let config = Config {
        pcpus,
        vms: 1,
        asids: 2,
        tables: VmTables::default(),
        features: crate::Features::default(),
        vcpu_vm: vec![0],
        pages: 1,
        word_bits,
        store_buffers: false,
        guests: None,
        constants: vec![
            ("P".to_owned(), Type::Ref(Object::Page), 0),
            ("vm0".to_owned(), Type::Ref(Object::Vm), 0),
        ],
        defines: Vec::new(),
    };
    let entries = ["vcpu_thread", "vcpu_sched_out", "vcpu_sched_in", "guest", "reclaim"];
    compile(&sources, &find, &entries, &config).unwrap_or_else(|diags| {
        panic!("{name}:\n{}", diags.iter().map(|d| format!("{d}\n")).collect::<String>())
    })
}

#[test]
fn every_policy_compiles_for_small_and_large_machines() {
    for (name, text) in policies() {
        for (pcpus, word_bits) in [(1, 64), (2, 64), (3, 2), (384, 64)] {
            let code = build(&text, &name, pcpus, word_bits);
            assert!(code.entry("reclaim").is_some());
        }
    }
}
