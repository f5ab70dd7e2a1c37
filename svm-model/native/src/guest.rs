//! A real guest through `/dev/kvm`, not encrypted: dirties a number of lines and leaves by a port write, again and again.

use kvm_bindings::{KVM_CAP_VM_TYPES, kvm_sev_cmd, sev_cmd_id_KVM_SEV_GUEST_STATUS};
use kvm_ioctls::Kvm;

use crate::buffer::{Buffer, LINE};
use crate::vm::{DATA_AT, Exit, Failed, Leaves, MOST, Vm, open, supported};

/// A VM of one vCPU with its memory.
#[derive(Debug)]
pub struct Guest {
    vm: Vm,
    bytes: usize,
}

fn said(failed: Failed) -> String {
    failed.to_string()
}

impl Guest {
    /// Makes it, with room for so many lines.
    ///
    /// # Errors
    /// Which call failed, and how.
    pub fn new(kvm: &Kvm, lines: usize) -> Result<Guest, String> {
        let memory = Buffer::new(DATA_AT + lines * LINE).map_err(|e| format!("memory of the guest: {e}"))?;
        let bytes = memory.bytes().len();
        if bytes > MOST {
            return Err("the guest's page tables reach 1 GiB only".to_owned());
        }
        let mut vm = Vm::new(kvm, 0).map_err(said)?;
        vm.fill(memory, Leaves::ByPort, 0).map_err(said)?;
        vm.attach(bytes).map_err(said)?;
        vm.add_vcpu().map_err(said)?;
        vm.start(&supported(kvm).map_err(said)?, Leaves::ByPort, 0).map_err(said)?;
        Ok(Guest { vm, bytes })
    }

    /// Gives the VM its memory.
    ///
    /// # Errors
    /// KVM's.
    pub fn attach(&mut self) -> Result<(), String> {
        self.vm.attach(self.bytes).map_err(said)
    }

    /// Takes the memory back: deletes the memory slot.
    ///
    /// # Errors
    /// KVM's.
    pub fn detach(&mut self) -> Result<(), String> {
        self.vm.detach().map_err(said)
    }

    /// Sets how many lines each run dirties.
    ///
    /// # Errors
    /// KVM's.
    pub fn set_lines(&mut self, lines: usize) -> Result<(), String> {
        self.vm.set_lines(lines.min((self.bytes - DATA_AT) / LINE)).map_err(said)
    }

    /// Lets it run to its port write.
    ///
    /// # Errors
    /// It stopped for another reason.
    pub fn run(&mut self) -> Result<(), String> {
        match self.vm.run().map_err(said)? {
            Exit::Own(Leaves::ByPort) => Ok(()),
            other @ (Exit::Own(Leaves::ByRequest) | Exit::Other(_)) => {
                Err(format!("the guest did not reach its port write: {other:?}"))
            }
        }
    }

    /// Gives the page at `at` of the guest's memory back to the kernel, as reclaim does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drop_page(&mut self, at: usize) -> Result<(), String> {
        let done = self.vm.discard(at).ok_or("the guest has no such page")?;
        done.map_err(|e| format!("madvise: {e}"))
    }
}

/// What KVM answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// `KVM_CAP_VM_TYPES`, a bit a type.
    pub vm_types: u32,
    /// What a SEV command came to on a plain VM.
    pub encrypt: Result<(), String>,
}

/// Opens KVM, runs a guest, and asks what a probe needs.
///
/// # Errors
/// What is missing.
pub fn facts() -> Result<Facts, String> {
    let kvm = open()?;
    Guest::new(&kvm, 1)?.run()?;
    let vm_types = u32::try_from(kvm.check_extension_raw(u64::from(KVM_CAP_VM_TYPES))).unwrap_or(0);
    let vm = Vm::new(&kvm, 0).map_err(said)?;
    let mut command = kvm_sev_cmd { id: sev_cmd_id_KVM_SEV_GUEST_STATUS, ..Default::default() };
    let encrypt = vm.fd().encrypt_op_sev(&mut command).map_err(|e| e.to_string());
    Ok(Facts { vm_types, encrypt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_guest_runs_and_dirties_what_it_is_told() {
        let kvm = match open() {
            Ok(kvm) => kvm,
            Err(why) => {
                eprintln!("skipped: {why}");
                return;
            }
        };
        let mut guest = Guest::new(&kvm, 64).unwrap();
        guest.run().unwrap();
        guest.set_lines(5).unwrap();
        guest.run().unwrap();
        let memory = guest.vm.bytes();
        let dirtied = memory[DATA_AT..].chunks(LINE).take(64).take_while(|line| line[0] != 0).count();
        assert_eq!(dirtied, 5);
    }
}
