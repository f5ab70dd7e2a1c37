//! The tables of `docs/SITES.md` that are made, from what `sevsim test --sites` prints: each site without its flush, for each class of
//! pages and kind of guest; each switch of linux-6.17 that is on turned off, and each call that flushes deleted from the text, with the
//! tests of the corpus that object. `SNAPSHOTS=overwrite cargo test --test it` writes them anew.

use std::fmt::Write as _;

use serde_json::Value;
use sim_explore::Limits;
use svm_model::text::{self, KERNELS, POLICIES, Text};
use workloads::check::{CheckCase, NamedText, Verdict};
use workloads::litmus::{BUILTIN, Litmus};
use workloads::sites::lives::{GUESTS, PAGES, SITES};
use workloads::sites::{Flush, each_without};

use super::program::{optimised, sevsim};

const KERNEL: &str = "linux-6.17";

/// What stands above the table of sites by pages and guests, and below it.
const PRODUCT: &str = "<!-- each site, class of pages and kind of guest -->\n";
const AFTER_PRODUCT: &str = "<!-- end of the sites -->\n";

/// What stands above the table of switches, and below it.
const MARK: &str = "<!-- each switch turned off -->\n";
const AFTER: &str = "<!-- end of the switches -->\n";

/// What stands above the table of calls.
const CALLS: &str = "<!-- each flush call deleted -->\n";

fn named(all: &[Text], name: &str) -> NamedText {
    let t = all.iter().find(|t| t.name == name).expect("a built-in text");
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

fn word<'v>(row: &'v Value, key: &str) -> &'v str {
    row[key].as_str().unwrap_or_default()
}

/// What a life comes to, in a cell; the letter of the reason where it makes no sense.
fn cell(life: &Value, whys: &mut Vec<String>) -> String {
    match word(life, "comes_to") {
        "no-sense" => {
            let why = word(life, "why");
            let known = whys.iter().position(|w| w == why);
            let n = known.unwrap_or_else(|| {
                whys.push(why.to_owned());
                whys.len() - 1
            });
            format!("no sense: {}", char::from(b"abcdefghijklmnopqrstuvwxyz"[n]))
        }
        "none" => "has none".to_owned(),
        "redundant" => "redundant".to_owned(),
        "needed" => format!("**needed** ({})", word(life, "event")),
        other => panic!("{other}: {life}"),
    }
}

/// The table of the sites by pages and guests, and below it why some do not go together.
fn product(rows: &[Value]) -> String {
    let mut whys: Vec<String> = Vec::new();
    let mut table = "| site | pages | SEV | SEV-ES | SEV-SNP |\n|---|---|---|---|---|\n".to_owned();
    for (site, _) in SITES {
        for pages in PAGES {
            write!(table, "| {site} | {pages} |").expect("a string takes all");
            for (guest, _) in GUESTS {
                let is = |row: &&Value| {
                    let of = (word(row, "table"), word(row, "site"), word(row, "pages"), word(row, "guest"));
                    of == ("life", site, pages, guest)
                };
                let each: Vec<(String, String)> = rows
                    .iter()
                    .filter(is)
                    .map(|row| (word(row, "kernel").replace("linux-", ""), cell(row, &mut whys)))
                    .collect();
                let cell = match each.iter().all(|(_, cell)| *cell == each[0].1) {
                    true => each[0].1.clone(),
                    false => each.iter().map(|(k, c)| format!("{k}: {c}")).collect::<Vec<_>>().join("; "),
                };
                write!(table, " {cell} |").expect("a string takes all");
            }
            table.push('\n');
        }
    }
    table.push('\n');
    for (why, letter) in whys.iter().zip('a'..) {
        writeln!(table, "* {letter}: {why}.").expect("a string takes all");
    }
    table
}

/// Who objects to a row's absence; else the page above has to say that it is redundant.
fn objections(row: &Value, key: &str, above: &str, whole: bool) -> String {
    let all = row["objections"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |o: &Value| {
        let litmus = word(o, "litmus");
        let shown = if whole { litmus } else { litmus.split(':').next().unwrap_or_default() };
        format!("`{shown}` ({})", word(o, "event"))
    };
    if !all.is_empty() {
        return all.iter().map(name).collect::<Vec<_>>().join(", ");
    }
    let why = above.lines().find(|l| l.contains(key) && l.contains("redundant"));
    assert!(why.is_some(), "nobody objects to the absence of {key}, and SITES.md does not say why: {row}");
    "none: see above".to_owned()
}

/// The text of `docs/SITES.md` with its tables made anew.
pub(crate) fn with_each_switch(text: &str) -> String {
    let rows = optimised(&["test", "--sites", "--format", "json"]).ends(0).json();
    let (top, rest) = text.split_once(PRODUCT).expect("a mark above the sites");
    let (_, middle) = rest.split_once(AFTER_PRODUCT).expect("a mark below them");
    let text = format!("{top}{PRODUCT}{}{AFTER_PRODUCT}{middle}", product(&rows));
    let (above, rest) = text.split_once(MARK).expect("a mark above the table");
    let (between, _) =
        rest.split_once(AFTER).expect("a mark below it").1.split_once(CALLS).expect("another table");
    let mut switches =
        "| switch | files in whose program it is | files that object to its absence |\n|---|---|---|\n"
            .to_owned();
    let mut calls = "| in | call | an objection |\n|---|---|---|\n".to_owned();
    for row in rows.iter().filter(|row| word(row, "table") == "without") {
        let (function, text) = (word(row, "function"), word(row, "text"));
        if word(row, "kind") == "switch" {
            let files = objections(row, &format!("`{text}`"), above, false);
            let asked = row["files"].as_array().map_or(0, Vec::len);
            writeln!(switches, "| `{text}` | {asked} | {files} |").expect("a string takes all");
        } else {
            let key = format!("`{function}`: `{text}`");
            let file = objections(row, &key, &format!("{above}{between}"), true);
            writeln!(calls, "| `{function}` | `{text}` | {file} |").expect("a string takes all");
        }
    }
    format!("{above}{MARK}{switches}{AFTER}{between}{CALLS}{calls}")
}

#[test]
fn a_kernel_of_ones_own_is_asked_for_each_of_its_flushes() {
    let folder = super::program::Folder::new();
    let kernel = sevsim(&["show", "kernel", "linux-6.17"]).ends(0).out;

    folder.file("mine.c", kernel);
    let args = ["test", "--sites", "memslot-deleted", "--kernel", "./mine.c", "--format", "json"];
    let rows = super::program::sevsim_in(&folder, &args).ends(0).json();
    let row = |text: &str| {
        let row = rows.iter().find(|row| row["text"] == text).unwrap_or_else(|| panic!("no {text}"));
        row["objections"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(row("FLUSH_ON_MEMSLOT_DELETE"), 1);
    assert_eq!(row("FLUSH_ON_VMSA_FREE"), 0, "it is in no program of this test");
    assert!(rows.iter().any(|row| row["table"] == "life" && row["comes_to"] == "needed"));
    sevsim(&["test", "--sites", "--expect-as", "linux-6.17"]).ends(2).says(&["--expect-as"]);
}

/// The sites' text without the call in a function, or with the order in it changed.
fn without(text: &str, found: &dyn Fn(&Flush) -> bool) -> String {
    let kernel = named(KERNELS, KERNEL);
    let each = each_without(&kernel).expect("what it includes is built in");
    let change = each.into_iter().find(|w| found(&w.flush)).expect("there is such a flush");
    let (from, to) = change.text.expect("a call or an order");
    assert_eq!(from, text, "it is of the sites' text");
    to
}

#[test]
fn zap_and_order_cover_for_each_other_where_guest_memfd_frees_a_page() {
    let sites = text::find("sev-6.17", "").expect("the sites of 6.17").text;
    let zap = |f: &Flush| matches!(f, Flush::Call { function, text } if function == "kvm_gmem_punch_hole" && text == "zap_spte(kvm, page)");
    let unzapped = without(&sites, &zap);
    let order = without(&sites, &|f| *f == Flush::Order("sev_gmem_invalidate".to_owned()));
    let line = unzapped.lines().zip(sites.lines()).position(|(new, old)| new != old).expect("a line");
    let both: String = order
        .lines()
        .enumerate()
        .map(|(n, l)| if n == line { "\n".to_owned() } else { format!("{l}\n") })
        .collect();
    let kernel = named(KERNELS, KERNEL);
    let include = "#include \"sev-6.17.c\"\n";
    let (_, file, text) =
        BUILTIN.iter().find(|t| t.0 == "gmem-freed-without-clflush").expect("a built-in test");
    let variants = Litmus::parse(file, text).expect("a built-in test").variants();
    let litmus = variants.iter().find(|l| l.variant() == Some("kept")).expect("a variant");
    let verdict = |sites: &str| {
        let kernel = &NamedText { text: kernel.text.replacen(include, sites, 1), ..kernel.clone() };
        let policy = &named(POLICIES, "sticky-wbnoinvd");
        let case = CheckCase { litmus, policy, kernel, part: "genoa", sme_coherent: true };
        case.run(Limits::default(), None, None).expect("it runs").verdict
    };
    let came = [&sites, &unzapped, &order, &both].map(|s| verdict(s));
    assert_eq!(came, [Verdict::Holds, Verdict::Holds, Verdict::Holds, Verdict::Violated]);
}

#[test]
fn the_lock_of_the_asids_is_missed_in_each_race_that_it_excludes() {
    let calls = ["\tmutex_lock(&sev_bitmap_lock);\n", "mutex_unlock(&sev_bitmap_lock);\n"];
    let sites = text::find("sev-6.17", "").expect("the sites of 6.17").text;
    let unlocked = calls.iter().fold(sites.clone(), |text, call| text.replace(call, "\n"));
    assert_eq!(unlocked.matches("sev_bitmap_lock").count(), 1, "its definition alone is left");
    let kernel = named(KERNELS, KERNEL);
    let include = "#include \"sev-6.17.c\"\n";
    let whole = |sites: &str| NamedText { text: kernel.text.replacen(include, sites, 1), ..kernel.clone() };
    let (right, wrong) = (whole(&sites), whole(&unlocked));
    let (_, file, text) = BUILTIN.iter().find(|t| t.0 == "asid-bitmap").expect("a built-in test");
    let policy = named(POLICIES, "no-flush");
    for litmus in Litmus::parse(file, text).expect("a built-in test").variants() {
        let verdict = |kernel: &NamedText| {
            let case =
                CheckCase { litmus: &litmus, policy: &policy, kernel, part: "rome", sme_coherent: false };
            case.run(Limits::default(), None, None).expect("it runs").verdict
        };
        assert_eq!(
            (verdict(&right), verdict(&wrong)),
            (Verdict::Holds, Verdict::Violated),
            "{}",
            litmus.name
        );
    }
}
