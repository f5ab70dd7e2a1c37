//! The built-in texts: kernels and policies.

/// A built-in text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    /// Its name on the command line.
    pub name: &'static str,
    /// The file it comes from, as shown in errors and stories.
    pub file: &'static str,
    /// The text.
    pub text: &'static str,
}

macro_rules! texts {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(Text {
            name: $name,
            file: concat!($folder, "/", $name, ".c"),
            text: include_str!(concat!("../", $folder, "/", $name, ".c")),
        }),*]
    };
}

/// The built-in kernels.
pub const KERNELS: &[Text] =
    texts!("kernels": "linux-5.5", "linux-5.17", "linux-6.1", "linux-6.11", "linux-6.17", "linux-7.3");

/// The kernel that is taken where none is named.
pub const DEFAULT_KERNEL: &str = "linux-6.17";

/// The text of [`DEFAULT_KERNEL`].
#[must_use]
pub fn default_kernel() -> &'static Text {
    KERNELS.iter().find(|t| t.name == DEFAULT_KERNEL).unwrap_or(&KERNELS[0])
}

/// Built-in texts that kernels and litmus tests include.
pub const PARTS: &[Text] = texts!("kernels": "sev-6.17", "cpu-hotplug");

/// The built-in policies, in the order in which reports list them.
pub const POLICIES: &[Text] = texts!("policies":
    "no-flush",
    "all-wbinvd",
    "all-wbnoinvd",
    "sticky-wbinvd",
    "sticky-wbnoinvd",
    "sticky-vcpu-load",
    "flush-then-clear",
    "clear-remark",
    "clear-remark-mutex",
    "clear-remark-mutex-copy",
    "clear-remark-mutex-late-publish",
    "clear-mutex-no-remark",
    "clear-in-handler",
    "clear-in-handler-early",
    "test-and-clear",
    "snapshot-and-clear",
    "clear-remark-trylock",
    "apic-map",
    "apic-map-skip-in-progress",
    "clflush-host",
    "page-flush-msr",
    "event-filter",
    "per-ccx",
    "mark-at-put",
    "oracle",
);

/// Finds a built-in text that an `#include` names, with or without `.c`: [`svm_lang::Find`] for the built-in texts.
///
/// # Errors
///
/// There is no such text; the message names those that there are.
pub fn find(name: &str, _from: &str) -> Result<svm_lang::Included, String> {
    let wanted = name.strip_suffix(".c").unwrap_or(name);
    let mut all = KERNELS.iter().chain(PARTS).chain(POLICIES);
    match all.find(|t| t.name == wanted) {
        Some(t) => Ok(svm_lang::Included { file: t.file.to_owned(), text: t.text.to_owned() }),
        None => {
            let names: Vec<String> =
                KERNELS.iter().chain(PARTS).chain(POLICIES).map(|t| format!("\"{}.c\"", t.name)).collect();
            Err(format!("the built-in texts are {}", names.join(", ")))
        }
    }
}

impl Text {
    /// The first sentence of the text's opening comment: its rule.
    #[must_use]
    pub fn summary(&self) -> String {
        let comment = self.text.split("*/").next().unwrap_or("");
        let words = comment.trim_start_matches("/*").lines().map(|l| l.trim().trim_start_matches('*').trim());
        let mut summary = String::new();
        for line in words.filter(|l| !l.is_empty()) {
            if line.starts_with("Cost:") {
                break;
            }
            if !summary.is_empty() {
                summary.push(' ');
            }
            summary.push_str(line.trim_start_matches("Rule:").trim());
        }
        summary
    }
}
