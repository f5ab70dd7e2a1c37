//! `docs/LANGUAGE.md` says what the compiler does: its generated parts are compared, its example compiled.

use std::fs;
use std::path::Path;

use super::{config, errors, golden};
use crate::builtin::TABLE;
use crate::{Role, Source, compile, kernel_names, reference};

/// The text with what stands between two marks replaced.
fn fill(text: &str, mark: &str, with: &str) -> String {
    let (begin, end) = (format!("<!-- {mark}:begin -->"), format!("<!-- {mark}:end -->"));
    let from = text.find(&begin).expect("the mark") + begin.len();
    let to = text.find(&end).expect("the mark's end");
    format!("{}\n{}\n{}", &text[..from], with.trim_end(), &text[to..])
}

#[test]
fn the_documentation_is_what_the_table_and_the_errors_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/LANGUAGE.md");
    let text = fs::read_to_string(&path).expect("docs/LANGUAGE.md");
    let filled = fill(&fill(&text, "builtin", &reference()), "errors", &errors::examples());
    let filled = fill(&filled, "kernel", &kernel_names());
    if golden::bless() {
        fs::write(&path, &filled).expect("docs/LANGUAGE.md can be written");
    } else {
        assert!(text == filled, "docs/LANGUAGE.md is behind; SVM_LANG_BLESS=1 rewrites its generated parts");
    }
}

#[test]
fn the_example_of_the_documentation_compiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/LANGUAGE.md");
    let text = fs::read_to_string(&path).expect("docs/LANGUAGE.md");
    let policy = text.split("```c\n").nth(1).and_then(|t| t.split("```").next()).expect("an example");
    let kernel = super::texts::kernel();
    let sources = [
        Source { file: "kernel.c", text: &kernel, role: Role::Kernel },
        Source { file: "LANGUAGE.md", text: policy, role: Role::Policy },
    ];
    let code = compile(&sources, &super::texts::find, &["vcpu_thread", "madvise_dontneed"], &config(2, 64));
    assert!(code.is_ok(), "{}", code.unwrap_err()[0]);
}

#[test]
fn the_table_has_each_call_once_and_complete() {
    for (i, row) in TABLE.iter().enumerate() {
        assert!(TABLE[..i].iter().all(|other| other.name != row.name), "{}", row.name);
        assert!(row.pars.len() <= 4 && !row.meaning.is_empty() && !row.steps.is_empty(), "{}", row.name);
    }
}
