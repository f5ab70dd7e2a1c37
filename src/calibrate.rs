//! `sevsim calibrate`: measures this host and writes a profile for `--profile`.

use std::path::{Path, PathBuf};

use svm_native::calibrate::{Options, calibrate as measure, plan};
use svm_native::probe::caveat;
use svm_native::profile::{Profile, Reading};
use svm_native::safety::other_vms;
use svm_native::{module_file, noise};

use crate::args::{CalibrateArgs, Format};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::report::number::thousandths;
use crate::report::table::{Cell, Head, styled, table};
use crate::report::{json, style, verdicts};
use crate::target::Target;

/// Does it.
pub(crate) fn calibrate(args: &CalibrateArgs, out: &mut Output) -> Result<Exit, Failure> {
    let options = Options {
        quick: args.quick,
        stop: interrupt::flag(),
        yes_flush: args.yes_flush_this_host,
        governor: args.governor.as_deref(),
    };
    if args.dry_run {
        for line in plan(&options) {
            out.print(&format!("{line}\n"));
        }
        if let Some(path) = &args.load_module {
            out.print(&format!("loads {} into the kernel, and unloads it at the end\n", path.display()));
            here_not(out, module_file::loadable(path));
        }
        let target = args.out.as_ref().map_or("standard output".to_owned(), |p| p.display().to_string());
        out.print(&format!("then writes the profile to {target}; nothing else of the host is changed\n"));
        for (option, path) in [("--out", &args.out), ("--record-sev", &args.record_sev)] {
            here_not(out, path.as_ref().map_or(Ok(()), |path| Target::look(option, path).map(drop)));
        }
        return Ok(Exit::Done);
    }
    let target = |option, path: &Option<PathBuf>| {
        path.as_ref().map(|path| Target::new(option, path)).transpose().map_err(Failure::input)
    };
    let (to, record) = (target("--out", &args.out)?, target("--record-sev", &args.record_sev)?);
    if args.load_module.is_some() {
        // What the module is for is refused later else, with the module in the kernel.
        let others = other_vms(Path::new("/"), std::process::id());
        others.may_flush(args.yes_flush_this_host).map_err(|why| Failure {
            exit: Exit::Unable,
            message: format!("--load-module is refused: {why}"),
        })?;
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let _loaded = match &args.load_module {
        Some(path) => {
            let loaded = svm_native::helper::Loaded::load(path);
            Some(loaded.map_err(|why| Failure { exit: Exit::Unable, message: why })?)
        }
        None => None,
    };
    let kept = std::cell::RefCell::new(None);
    let mut tell = |step: &svm_native::calibrate::Step| out.log(&format!("{}: {}", step.name, step.does));
    let mut keep = |profile: &Profile| {
        *kept.borrow_mut() = Some(profile.clone());
        to.as_ref().map_or(Ok(()), |to| to.keep(&profile.toml()))
    };
    let done = measure(&options, &mut tell, &mut keep);
    let done = done.map_err(|why| Failure { exit: Exit::Unable, message: why })?;
    if let Some(record) = &record {
        record.finish(&done.exchange).map_err(Failure::internal)?;
    }
    let Some(profile) = kept.into_inner() else {
        out.log("interrupted before a step was done");
        return Err(Failure::interrupted());
    };
    if let Some(to) = &to {
        to.finish(&profile.toml()).map_err(Failure::internal)?;
    }
    match args.format.format {
        Format::Table if args.out.is_none() => out.print(&profile.toml()),
        Format::Table => out.print(&text(&profile, out.width())),
        Format::Json => {
            for r in &profile.readings {
                out.print(&json::line(&Line::of(r)));
            }
        }
        Format::Csv => {
            out.print("name,value,low,high,unit,samples,tagged,method\n");
            for r in &profile.readings {
                let [value, low, high] = [r.spread.p50, r.spread.p10, r.spread.p90].map(thousandths);
                let (name, unit) = (r.name.clone(), r.unit.name().to_owned());
                let (samples, tagged) = (r.samples.to_string(), r.tagged.to_string());
                out.print(&verdicts::csv_line(&[
                    name,
                    value,
                    low,
                    high,
                    unit,
                    samples,
                    tagged,
                    r.method.clone(),
                ]));
            }
        }
    }
    out.log(&noise::sum(&profile.noise).said());
    if let Some(name) = &profile.host.hypervisor {
        out.log(&caveat(name));
    }
    if profile.complete {
        return Ok(Exit::Done);
    }
    let target = args.out.as_ref().map_or(String::new(), |p| format!(" --out {}", p.display()));
    let quick = if args.quick { " --quick" } else { "" };
    out.log(&format!(
        "interrupted; what was measured is kept. To measure all of it: sevsim calibrate{quick}{target}"
    ));
    Ok(Exit::Saved)
}

/// What of a plan cannot be done here.
fn here_not(out: &mut Output, could: Result<(), String>) {
    if let Err(why) = could {
        out.print(&format!("HERE NOT: {why}\n"));
    }
}

fn text(profile: &Profile, width: usize) -> String {
    let heads = [
        Head::left("", "number"),
        Head::right("", "median"),
        Head::right("", "p10"),
        Head::right("", "p90"),
        Head::left("", "unit"),
        Head::right("", "samples"),
        Head::right("", "tagged"),
    ];
    let row = |r: &Reading| {
        let [value, low, high] = [r.spread.p50, r.spread.p10, r.spread.p90].map(thousandths);
        let (samples, tagged) = (r.samples.to_string(), r.tagged.to_string());
        [r.name.clone(), value, low, high, r.unit.name().to_owned(), samples, tagged].map(Cell::from).to_vec()
    };
    let rows: Vec<Vec<Cell>> = profile.readings.iter().map(row).collect();
    let mut text = table(&heads, &rows, width);
    text.push_str(&format!("\n{}\n", styled("not measured:", style::strong())));
    for (name, why) in &profile.missing {
        text.push_str(&format!("  {name}: {why}\n"));
    }
    text
}

/// `sevsim.calibrate/1`, a number.
#[derive(Debug, serde::Serialize)]
struct Line<'a> {
    schema: &'static str,
    name: &'a str,
    unit: &'static str,
    value_thousandths: u64,
    low_thousandths: u64,
    high_thousandths: u64,
    samples: usize,
    tagged: usize,
    method: &'a str,
}

impl<'a> Line<'a> {
    fn of(r: &'a Reading) -> Line<'a> {
        Line {
            schema: "sevsim.calibrate/1",
            name: &r.name,
            unit: r.unit.name(),
            value_thousandths: r.spread.p50,
            low_thousandths: r.spread.p10,
            high_thousandths: r.spread.p90,
            samples: r.samples,
            tagged: r.tagged,
            method: &r.method,
        }
    }
}
