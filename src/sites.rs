//! `sevsim test --sites`: may a site drop its flush?

use cache_model::part::Part;
use rayon::prelude::*;
use sim_explore::Search;
use svm_model::text::DEFAULT_KERNEL;
use workloads::check::{CheckCase, NamedText};
use workloads::sites::lives::{ComesTo, GUESTS, PAGES, SITES, without_flush};
use workloads::sites::{Asked, Flush, Held, Without, ask, each_without};

use crate::args::{Format, TestArgs};
use crate::cases::{Cases, holding};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::names::{self, Kind};
use crate::output::Output;
use crate::progress::Progress;
use crate::report::{json, sites as report};

/// Policies under which a kernel as it is should be safe: what goes wrong without a flush is not theirs. A test that
/// is about none of them is asked under its own.
const SAFE: [&str; 2] = ["sticky-wbnoinvd", "all-wbinvd"];

/// Kernels with guest_memfd: with the flush at VM destroy, and without.
const ERAS: [&str; 2] = ["linux-6.11", DEFAULT_KERNEL];

/// Parts on which VMs live: without SME_COHERENT, and with it.
const PARTS: [&str; 2] = ["rome", "genoa"];

/// A life of a VM.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) site: &'static str,
    pub(crate) pages: &'static str,
    pub(crate) guest: &'static str,
    pub(crate) kernel: String,
    pub(crate) comes_to: ComesTo,
}

/// All that was asked.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) kernel: String,
    pub(crate) lives: Vec<Life>,
    pub(crate) flushes: Vec<(Flush, Asked)>,
}

/// Does it.
pub(crate) fn sites(args: &TestArgs, out: &mut Output) -> Result<Exit, Failure> {
    let about = &args.cases.search.about;
    let named = !args.cases.policies.is_empty();
    let cases = Cases::read(&args.litmus, &args.cases)?;
    let kernel = names::find(Kind::Kernel, about.kernel.as_deref().unwrap_or(DEFAULT_KERNEL))?;
    let safe = |c: &CheckCase<'_>| {
        let listed = |name: &str| c.litmus.policies().is_none_or(|p| p.iter().any(|p| p == name));
        named || SAFE.contains(&c.policy.name.as_str()) || !SAFE.iter().any(|name| listed(name))
    };
    let all: Vec<CheckCase<'_>> = cases.each().filter(|c| c.kernel.name == kernel.name && safe(c)).collect();
    let limits = args.cases.search.limits();
    let mut held = Vec::new();
    for case in holding(&all, limits)? {
        held.push(Held::new(case).map_err(Failure::check)?);
    }
    let each = each_without(&kernel).map_err(Failure::input)?;
    let progress = Progress::new(each.len(), "flushes");
    let search = || {
        let flag = interrupt::flag();
        (!interrupt::asked()).then(|| Search { limits, interrupted: Some(flag), ..Search::default() })
    };
    let asked: Vec<_> = each
        .par_iter()
        .enumerate()
        .map(|(at, without)| {
            let first = !matches!(without.flush, Flush::Switch(_));
            let asked = ask(without, &held, first, search);
            progress.done(at);
            asked
        })
        .collect();
    progress.clear();
    let mut flushes = Vec::new();
    for (without, asked) in each.into_iter().zip(asked) {
        let about = |w: &Without| format!("without {}: ", report::name(&w.flush));
        let asked = asked.map_err(|error| {
            let failure = Failure::check(error);
            Failure { message: format!("{}{}", about(&without), failure.message), ..failure }
        })?;
        let Some(asked) = asked else { return Err(Failure::interrupted()) };
        flushes.push((without.flush, asked));
    }
    if interrupt::asked() {
        return Err(Failure::interrupted());
    }
    let lives = match about.kernel {
        Some(_) => lives(std::slice::from_ref(&kernel))?,
        None => lives(
            &ERAS.map(|name| names::find(Kind::Kernel, name)).into_iter().collect::<Result<Vec<_>, _>>()?,
        )?,
    };
    let answers = Answers { kernel: kernel.name, lives, flushes };
    match about.format.format {
        Format::Table => out.print(&report::table(&answers, out.width())),
        Format::Json => report::json(&answers).iter().for_each(|row| out.print(&json::line(row))),
        Format::Csv => out.print(&report::csv(&answers)),
    }
    let open = answers.flushes.iter().any(|(_, asked)| asked.objections.is_empty() && !asked.open.is_empty());
    Ok(if open { Exit::Inconclusive } else { Exit::Done })
}

/// Each site, class of pages and kind of guest, in each kernel.
fn lives(kernels: &[NamedText]) -> Result<Vec<Life>, Failure> {
    let policies = SAFE.map(|name| names::find(Kind::Policy, name));
    let policies = policies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let coherent = |name| names::part(name).map(|part: Part| (name, part.sme_coherent()));
    let parts = PARTS.map(coherent).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut each = Vec::new();
    for site in SITES {
        for (pages, guest) in PAGES.iter().flat_map(|pages| GUESTS.map(|guest| (*pages, guest))) {
            each.extend(kernels.iter().map(|kernel| (site, pages, guest, kernel)));
        }
    }
    let lives = each.into_par_iter().map(|(site, pages, guest, kernel)| {
        let comes_to =
            without_flush(site, pages, guest, kernel, (&policies, &parts)).map_err(Failure::check)?;
        Ok(Life { site: site.0, pages, guest: guest.0, kernel: kernel.name.clone(), comes_to })
    });
    lives.collect()
}
