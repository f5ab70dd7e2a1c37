//! `sevsim native`: policies on this host, through the helper module.

pub(crate) mod program;
pub(crate) mod text;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod run;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use run::native;

/// Says that this build cannot.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) fn native(
    _args: &crate::args::NativeArgs,
    _out: &mut crate::output::Output,
) -> Result<crate::exit::Exit, crate::exit::Failure> {
    let message = svm_native::UNSUPPORTED.to_owned();
    Err(crate::exit::Failure { exit: crate::exit::Exit::Unable, message })
}
