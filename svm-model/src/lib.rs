//! pCPUs, vCPUs, VMs, IPIs, locks, and the kernels and policies that run on them.
#![forbid(unsafe_code)]
