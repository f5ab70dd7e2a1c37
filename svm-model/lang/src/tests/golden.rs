//! Expected texts in files. With `SVM_LANG_BLESS` set they are written instead of compared.

use std::fs;
use std::path::{Path, PathBuf};

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden").join(name)
}

pub(super) fn bless() -> bool {
    std::env::var_os("SVM_LANG_BLESS").is_some()
}

/// Compares a text with the one expected.
pub(super) fn compare(name: &str, text: &str) {
    let path = place(name);
    if bless() {
        fs::write(&path, text).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{name} differs; SVM_LANG_BLESS=1 rewrites it. Now:\n{text}");
}
