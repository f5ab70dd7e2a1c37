//! How the program ends: the exit codes that scripts rely on, and what is said when a command cannot be done.

use std::process::ExitCode;

use cache_model::part::PartError;
use owo_colors::OwoColorize as _;
use svm_model::lang::Diag;
use svm_native::module_file::Unloadable;
use workloads::check::CheckError;
use workloads::litmus::LitmusError;
use workloads::scenario::ScenarioError;

use crate::output::Output;

/// An exit code, by its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Done; holds; expectations met.
    Done,
    /// An error of this program or of the system below it.
    Internal,
    /// Wrong usage or bad input.
    Usage,
    /// Violated, or an expectation missed.
    Violated,
    /// A bound was met: never success.
    Inconclusive,
    /// This host cannot do it.
    Unable,
    /// Interrupted; what was done is printed.
    Saved,
    /// Interrupted with nothing to show.
    Interrupted,
}

impl Exit {
    /// The number.
    const fn number(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Internal => 1,
            Exit::Usage => 2,
            Exit::Violated => 3,
            Exit::Inconclusive => 5,
            Exit::Unable => 6,
            Exit::Saved => 75,
            Exit::Interrupted => 130,
        }
    }

    /// As `main` returns it.
    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(self.number())
    }

    /// The worse of two: 1, 2, 3, 5, 0.
    pub(crate) fn worse(self, other: Exit) -> Exit {
        let rank = |e: Exit| match e {
            Exit::Interrupted => 6,
            Exit::Saved => 5,
            Exit::Internal => 4,
            Exit::Usage => 3,
            Exit::Violated => 2,
            Exit::Inconclusive | Exit::Unable => 1,
            Exit::Done => 0,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Why a command could not be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// What was wrong; begins with `error:` if it has its own layout.
    pub(crate) message: String,
}

impl Failure {
    /// Bad input or usage.
    pub(crate) fn input(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, message: message.into() }
    }

    /// A helper module that cannot be loaded: another file was meant, or this host does not.
    pub(crate) fn module(why: Unloadable) -> Failure {
        let exit = match why {
            Unloadable::NoModule(_) => Exit::Usage,
            Unloadable::NotHere(_) => Exit::Unable,
        };
        Failure { exit, message: why.why().to_owned() }
    }

    /// Not the user's fault.
    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Internal, message: message.into() }
    }

    /// Stopped by Ctrl-C before there was anything to show.
    pub(crate) fn interrupted() -> Failure {
        Failure { exit: Exit::Interrupted, message: String::new() }
    }

    /// Errors in texts: each brings its own layout; one without a place is about the file `about`.
    pub(crate) fn diags(diags: &[Diag], about: &str) -> Failure {
        Failure::each(diags, &format!("{about}: "))
    }

    fn each(diags: &[Diag], before: &str) -> Failure {
        let said = |diag: &Diag| {
            if diag.line > 0 {
                return diag.to_string();
            }
            let more = [&diag.expected, &diag.help].into_iter().flatten();
            more.fold(format!("error: {before}{}", diag.message), |text, more| format!("{text}; {more}"))
        };
        Failure::input(diags.iter().map(said).collect::<Vec<_>>().join("\n\n"))
    }

    /// Why a check cannot be run; an error without a place says itself what it is about.
    pub(crate) fn check(error: CheckError) -> Failure {
        match error {
            CheckError::Text(diags) => Failure::each(&diags, ""),
            CheckError::Runaway { .. } | CheckError::TooWide { .. } => Failure::input(error.to_string()),
            CheckError::Disk { error: ref cause, .. } => {
                use std::io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied, StorageFull};
                let helps = [
                    (AlreadyExists, "; a file is in the folder's place: name another folder"),
                    (NotADirectory, "; a file is in the folder's place: name another folder"),
                    (PermissionDenied, "; name a folder that you may write"),
                    (StorageFull, "; make room or name a folder of another file system, then --resume"),
                ];
                let help = helps.iter().find(|(kind, _)| *kind == cause.kind()).map_or("", |(_, help)| help);
                Failure::input(format!("--disk {error}{help}"))
            }
            CheckError::Story(..) => Failure::internal(error.to_string()),
        }
    }

    /// Why the scenario of the file `about` cannot be run.
    pub(crate) fn scenario(error: ScenarioError, about: &str) -> Failure {
        match error {
            ScenarioError::Part(error) => error.into(),
            ScenarioError::Text(diags) => Failure::diags(&diags, about),
            ScenarioError::Internal(_) => Failure { exit: Exit::Internal, message: error.to_string() },
            ScenarioError::GivenUp(message) => Failure { exit: Exit::Inconclusive, message },
            ScenarioError::File { .. } | ScenarioError::Guest(_) | ScenarioError::Run(_) => {
                Failure::input(error.to_string())
            }
        }
    }

    /// Says it on standard error.
    pub(crate) fn report(&self, out: &Output) -> Exit {
        if let Some(rest) = self.message.strip_prefix("error:") {
            out.log(&format!("{}{rest}", "error:".red().bold()));
        } else if !self.message.is_empty() {
            out.log(&format!("{} {}", "error:".red().bold(), self.message));
        }
        self.exit
    }
}

impl From<LitmusError> for Failure {
    fn from(error: LitmusError) -> Failure {
        Failure::input(error.to_string())
    }
}

impl From<PartError> for Failure {
    fn from(error: PartError) -> Failure {
        Failure::input(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_comes_in_the_stated_order() {
        let order = [Exit::Usage, Exit::Violated, Exit::Inconclusive, Exit::Done];
        for (i, a) in order.iter().enumerate() {
            for b in &order[i..] {
                assert_eq!(a.worse(*b), *a);
                assert_eq!(b.worse(*a), *a);
            }
        }
        assert_eq!(order.map(Exit::number), [2, 3, 5, 0]);
    }
}
