//! May a site drop its flush? Each switch of a kernel's text that is on, and each call in it that flushes, taken away: which
//! tests object? And a VM's whole life for each site, class of pages and kind of guest, in [`lives`].

pub mod lives;

use std::collections::{BTreeMap, BTreeSet};

use sim_explore::Search;
use svm_model::MemoryKind;

use crate::check::{Changes, CheckCase, CheckError, CheckReport, NamedText, Verdict};
use crate::include;
use crate::schedule::program_digest;

/// What flushes caches, takes translations away or flushes them, or has others do so. The calls that hand `__wbinvd()` to
/// pCPUs are those of its callers.
const FLUSHES: [&str; 16] = [
    "wbinvd",
    "wbnoinvd",
    "zap_spte",
    "vcpu_flush_tlb",
    "smp_call_function_many",
    "wbinvd_on_all_cpus",
    "clflush_page",
    "sev_clflush_pages",
    "vm_page_flush",
    "sev_flush_encrypted_page",
    "sev_writeback_caches",
    "sev_writeback_page",
    "sev_guest_memory_reclaimed",
    "sev_flush_asids",
    "sev_cmd_df_flush",
    "kvm_flush_remote_tlbs",
];

/// The changes of order that are tried: of a page that an SNP guest gives back, the CLFLUSH before its RMP entry is changed.
/// Function, the lines, and the lines in the other order.
const ORDERS: [(&str, &str, &str); 2] = [
    (
        "sev_gmem_invalidate",
        "\tif (rmp_make_shared(page))\n\t\treturn;\n\tif (FLUSH_ON_GMEM_FREE)\n\t\tclflush_page(page);\n",
        "\tif (FLUSH_ON_GMEM_FREE)\n\t\tclflush_page(page);\n\tif (rmp_make_shared(page))\n\t\treturn;\n",
    ),
    (
        "sev_free_vcpu",
        "\tif (sev_snp_guest(kvm) && rmp_make_shared(vmsa))\n\t\treturn;\n\tif (FLUSH_ON_VMSA_FREE)\n\t\tsev_flush_encrypted_page(kvm, vmsa);\n",
        "\tif (FLUSH_ON_VMSA_FREE)\n\t\tsev_flush_encrypted_page(kvm, vmsa);\n\tif (sev_snp_guest(kvm) && rmp_make_shared(vmsa))\n\t\treturn;\n",
    ),
];

/// What is taken away from a kernel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flush {
    /// A switch that is on: a `#define` of 1.
    Switch(String),
    /// A call, and the function that it is in.
    Call {
        /// The function.
        function: String,
        /// What the text says.
        text: String,
    },
    /// The order of a flush and an RMP change, in this function.
    Order(String),
}

/// A kernel without one of its flushes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Without {
    /// What it is without.
    pub flush: Flush,
    /// One of its texts, and what becomes of it; a switch changes none.
    pub text: Option<(String, String)>,
    /// The kernel's functions that it is in; `None` if not only in functions.
    functions: Option<BTreeSet<String>>,
}

/// The kernel's own text and all that it includes, in that order.
///
/// # Errors
///
/// What it includes is not there.
fn texts(kernel: &NamedText) -> Result<Vec<String>, String> {
    let mut all: Vec<(String, String)> = vec![(kernel.file.clone(), kernel.text.clone())];
    let mut at = 0;
    while let Some((from, text)) = all.get(at).cloned() {
        for line in text.lines().filter_map(|l| l.strip_prefix("#include \"")) {
            let name = line.trim_end().trim_end_matches('"');
            let found = include::find(name, &from)?;
            if all.iter().all(|(file, _)| *file != found.file) {
                all.push((found.file, found.text));
            }
        }
        at += 1;
    }
    Ok(all.into_iter().map(|(_, text)| text).collect())
}

/// The kernel without each of its flushes in turn: switches first, then calls, then changes of order, each in the order of the
/// texts.
///
/// # Errors
///
/// What the kernel's text includes is not there.
pub fn each_without(kernel: &NamedText) -> Result<Vec<Without>, String> {
    let texts = texts(kernel)?;
    // What includes a text says more than it.
    let mut defined: BTreeMap<&str, &str> = BTreeMap::new();
    let mut names: Vec<&str> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, value)) = line.strip_prefix("#define ").and_then(|l| l.split_once(' ')) else {
            continue;
        };
        if !defined.contains_key(name) {
            defined.insert(name, value.trim());
            names.push(name);
        }
    }
    // Without a rule that skips a flush there are only more of them; and a CPU without a feature is another CPU.
    let about =
        |name: &str| !name.contains("_SKIPS_") && !name.starts_with("CPU_HAS_") && !name.starts_with("KVM_");
    let on = names.into_iter().filter(|name| defined[name] == "1" && about(name));
    let switch = |name: &str| Without {
        flush: Flush::Switch(name.to_owned()),
        text: None,
        functions: functions_with(&texts, name),
    };
    let mut all: Vec<Without> = on.map(switch).collect();
    // What is nearest to the sites comes first: the included texts before those that include them.
    for text in texts.iter().rev() {
        for (function, call, new) in calls(text) {
            let functions = Some(BTreeSet::from([function.clone()]));
            let flush = Flush::Call { function, text: call };
            all.push(Without { flush, text: Some((text.clone(), new)), functions });
        }
        for (function, from, to) in ORDERS.iter().filter(|o| text.matches(o.1).count() == 1) {
            let functions = Some(BTreeSet::from([(*function).to_owned()]));
            let flush = Flush::Order((*function).to_owned());
            all.push(Without { flush, text: Some((text.clone(), text.replacen(from, to, 1))), functions });
        }
    }
    Ok(all)
}

/// Whether a text has a name in it, as a word.
fn has_word(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + name.len()..].starts_with(part))
}

/// The name of the function whose head a line is.
fn head(line: &str) -> Option<&str> {
    let is = !line.starts_with(['\t', ' ', '{', '}', '#', '/']) && line.ends_with(')');
    is.then(|| line.split('(').next().and_then(|l| l.rsplit([' ', '*']).next()).unwrap_or(""))
}

/// The functions in which a switch is asked; `None` if it is asked elsewhere, too.
fn functions_with(texts: &[String], switch: &str) -> Option<BTreeSet<String>> {
    let mut functions = BTreeSet::new();
    for text in texts {
        let mut function = None;
        for line in text.lines() {
            function = head(line).or(function);
            if !has_word(line, switch) || line.starts_with(&format!("#define {switch} ")) {
                continue;
            }
            if line.starts_with("#") {
                return None;
            }
            functions.insert(function?.to_owned());
        }
    }
    Some(functions)
}

/// Where a call in a line ends: behind its closing parenthesis.
fn call_end(line: &str, from: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in line.char_indices().skip_while(|(at, _)| *at < from) {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Every call that flushes in a text: its function, what it says, and the text without it. Calls over several lines are left alone.
fn calls(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut function = "";
    for (n, line) in text.lines().enumerate() {
        function = head(line).unwrap_or(function);
        for name in FLUSHES.iter().filter(|_| line.starts_with('\t')) {
            let word = |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let Some(at) = line.find(&format!("{name}(")).filter(|at| word(*at)) else { continue };
            let Some(end) = call_end(line, at) else { continue };
            // A statement goes; what a condition or an assignment asks for says that all is well.
            let alone = line[..at].trim().is_empty();
            let new = format!("{}{}{}", &line[..at], if alone { "" } else { "0" }, &line[end..]);
            let lines = text.lines().enumerate().map(|(i, l)| if i == n { new.as_str() } else { l });
            let without = lines.map(|l| format!("{l}\n")).collect();
            found.push((function.to_owned(), line[at..end].to_owned(), without));
        }
    }
    found
}

/// A case in which the kernel as it is holds.
#[derive(Clone, Debug)]
pub struct Held<'c> {
    /// The case.
    pub case: CheckCase<'c>,
    /// [`program_digest`] of its program.
    program: u64,
    /// The functions that are in it.
    functions: BTreeSet<String>,
}

impl<'c> Held<'c> {
    /// Of a case.
    ///
    /// # Errors
    ///
    /// Errors in the texts.
    pub fn new(case: CheckCase<'c>) -> Result<Held<'c>, CheckError> {
        let machine = case.machine(MemoryKind::Shadow)?;
        let code = machine.code();
        let reached = code.functions.iter().zip(&code.reached).filter(|f| *f.1);
        let functions = reached.map(|f| f.0.clone()).collect();
        Ok(Held { program: program_digest(&machine), functions, case })
    }
}

impl Without {
    /// Whether a case's program has it; says so without compiling it where the function is not there.
    fn may_be_in(&self, held: &Held<'_>) -> bool {
        let elsewhere = match &self.flush {
            Flush::Switch(name) => {
                has_word(&held.case.policy.text, name) || has_word(&held.case.litmus.body, name)
            }
            Flush::Call { .. } | Flush::Order(_) => false,
        };
        elsewhere || self.functions.as_ref().is_none_or(|f| !f.is_disjoint(&held.functions))
    }

    /// Searches a case without the flush, until any event is met; `None` if its program is the same with it.
    ///
    /// # Errors
    ///
    /// Errors in the texts: what is left may be no text of the language.
    pub fn check(&self, held: &Held<'_>, search: Search<'_>) -> Result<Option<CheckReport>, CheckError> {
        if !self.may_be_in(held) {
            return Ok(None);
        }
        let litmus = match &self.flush {
            Flush::Switch(name) => held.case.litmus.clone().with_define(name, 0),
            Flush::Call { .. } | Flush::Order(_) => held.case.litmus.clone(),
        };
        let kernel = |text: &str| match &self.text {
            Some((from, to)) if text == from => to.clone(),
            _ => text.to_owned(),
        };
        let case = CheckCase { litmus: &litmus, ..held.case.clone() };
        let machine = case.machine_with(MemoryKind::Shadow, &Changes { spec: &|_| {}, kernel: &kernel })?;
        if program_digest(&machine) == held.program {
            return Ok(None);
        }
        case.explore(&machine, search, true).map(Some)
    }
}

/// A case that objects, and the event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Objection {
    /// The litmus file, with its variant.
    pub litmus: String,
    /// Name of the event.
    pub event: &'static str,
}

/// What the tests say of a kernel without a flush.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// Files in whose program the flush is; with one objection wanted, those that were asked until it came.
    pub files: Vec<String>,
    /// Who objects: one case a file.
    pub objections: Vec<Objection>,
    /// Files of which a search met a bound before it met an event.
    pub open: Vec<String>,
}

/// Asks the cases what they say of a kernel without a flush; the first objection, or one of each file.
///
/// # Errors
///
/// Errors in the texts. `None` of `search` ends the asking.
pub fn ask<'s>(
    without: &Without,
    held: &[Held<'_>],
    first: bool,
    search: impl Fn() -> Option<Search<'s>>,
) -> Result<Option<Asked>, CheckError> {
    let mut asked = Asked::default();
    for h in held {
        let name = &h.case.litmus.name;
        let file = name.split(':').next().unwrap_or_default().to_owned();
        let objects = |o: &Objection| o.litmus.split(':').next() == Some(&file);
        if asked.objections.iter().any(objects) {
            continue;
        }
        let Some(search) = search() else { return Ok(None) };
        let Some(report) = without.check(h, search)? else { continue };
        if !asked.files.contains(&file) {
            asked.files.push(file.clone());
        }
        if let Some(event) = report.events.first() {
            asked.objections.push(Objection { litmus: name.clone(), event: event.event.name() });
            if first {
                break;
            }
        } else if report.verdict == Verdict::Bounded && !asked.open.contains(&file) {
            asked.open.push(file);
        }
    }
    asked.open.retain(|file| asked.objections.iter().all(|o| o.litmus.split(':').next() != Some(file)));
    Ok(Some(asked))
}
