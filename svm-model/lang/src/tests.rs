//! Tests of the whole crate.

mod errors;
mod exec;
mod generate;
mod golden;
mod include;
mod language;
mod limits;
mod listing;
mod lock;
mod masks;
mod mock;
mod random;
mod reference;
mod texts;

use crate::ast::Object;
use crate::{Code, Config, Role, Source, Type, VmTables, compile, no_includes};

/// Two VMs of two vCPUs and one, two pages, masks of one word.
pub(crate) fn config(pcpus: u16, word_bits: u8) -> Config {
    Config {
        pcpus,
        vms: 2,
        asids: 3,
        tables: VmTables::default(),
        features: crate::Features::default(),
        vcpu_vm: vec![0, 0, 1],
        pages: 2,
        word_bits,
        store_buffers: false,
        guests: None,
        constants: vec![
            ("P".to_owned(), Type::Ref(Object::Page), 0),
            ("Q".to_owned(), Type::Ref(Object::Page), 1),
            ("vm0".to_owned(), Type::Ref(Object::Vm), 0),
            ("vm1".to_owned(), Type::Ref(Object::Vm), 1),
            ("vcpu1".to_owned(), Type::Ref(Object::Vcpu), 1),
        ],
        defines: Vec::new(),
    }
}

pub(crate) fn litmus(text: &str) -> Source<'_> {
    Source { file: "test.c", text, role: Role::Litmus }
}

/// Compiles a litmus text; its errors fail the test.
pub(crate) fn code(text: &str, entries: &[&str], config: &Config) -> Code {
    compile(&[litmus(text)], &no_includes, entries, config).unwrap_or_else(|diags| {
        panic!("{text}\n{}", diags.iter().map(|d| format!("{d}\n")).collect::<String>())
    })
}
