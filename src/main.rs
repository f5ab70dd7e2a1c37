//! The command line of sevsim: checks and measures cache-flush policies for AMD SEV guests.
#![forbid(unsafe_code)]

mod args;
mod assume;
mod calibrate;
mod cases;
mod check;
mod compare;
mod exit;
mod export;
mod interrupt;
mod list;
mod module;
mod mutate;
mod names;
mod native;
mod output;
mod probe;
mod progress;
mod replay;
mod report;
mod scale;
mod show;
mod sites;
mod spool;
mod target;
mod test;
mod token;
mod validate;

use std::process::ExitCode;

use args::{Cli, Command, CompareArgs};
use exit::{Exit, Failure};
use output::Output;

fn main() -> ExitCode {
    svm_native::allocator::give_back_large_blocks();
    let cli = Cli::read();
    interrupt::install();
    let mut out = Output::new();
    let exit = run(cli, &mut out).unwrap_or_else(|failure| failure.report(&out));
    out.finish(exit).code()
}

fn run(cli: Cli, out: &mut Output) -> Result<Exit, Failure> {
    match cli.command {
        None => compare::compare(&CompareArgs { scenario: None, options: cli.compare }, out),
        Some(Command::Compare(args)) => compare::compare(&args, out),
        Some(Command::Run(args)) => compare::run(args, out),
        Some(Command::Check(args)) => check::check(&args, out),
        Some(Command::Test(args)) => test::test(&args, out),
        Some(Command::Assume(args)) => assume::assume(&args, out),
        Some(Command::Mutate(args)) => mutate::mutate(&args, out),
        Some(Command::Scale(args)) => scale::scale(&args, out),
        Some(Command::Export(args)) => export::export(&args, out),
        Some(Command::Replay(args)) => replay::replay(&args, out),
        Some(Command::Probe(args)) => probe::probe(&args, out),
        Some(Command::Calibrate(args)) => calibrate::calibrate(&args, out),
        Some(Command::Native(args)) => native::native(&args, out),
        Some(Command::Module(args)) => module::module(&args, out),
        Some(Command::Validate(args)) => validate::validate(&args, out),
        Some(Command::List(args)) => list::list(&args, out),
        Some(Command::Show(args)) => show::show(&args, out),
        Some(Command::Completions(args)) => Ok(show::completions(&args, out)),
        Some(Command::Man) => show::man(out),
    }
}
