//! The front matter's VMs, and pages of a special kind.

use serde::Deserialize;
use svm_model::spec::{Guests, VmKind, VmSpec};
use sev_arch::VcpuId;
use toml::Spanned;

use super::{Front, PageFront};

/// VMs that a test may have.
const MOST_VMS: usize = 6;
/// ASIDs that a test may have, the host's not counted.
const MOST_ASIDS: u16 = 8;

/// One `[[vm]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VmFront {
    /// `normal`, `sev`, `sev-es` or `sev-snp`; `sev` by default.
    kind: Option<Spanned<String>>,
    /// 0 for none yet; the lowest that no other VM has by default.
    asid: Option<Spanned<u16>>,
    /// The VM whose ASID, and with it whose key, it shares.
    mirror_of: Option<Spanned<u16>>,
}

/// What is wrong, and where in the TOML text; without a place, the name of a key to look for.
pub(super) enum Place {
    Offset(usize),
    Key(&'static str),
}

type Checked<T> = Result<T, (Place, String)>;

fn at<T>(spanned: &Spanned<T>, message: String) -> (Place, String) {
    (Place::Offset(spanned.span().start), message)
}

impl Front {
    /// How many VMs there are.
    pub(super) fn vm_count(&self) -> u16 {
        let listed = u16::try_from(self.vm.len()).unwrap_or(u16::MAX);
        if listed == 0 { self.vms.as_ref().map_or(1, |vms| *vms.get_ref()) } else { listed }
    }

    /// The VM that a page belongs to at first.
    pub(super) fn page_vm(&self, page: &PageFront) -> u16 {
        let of_vcpu = |vcpu: &Spanned<u16>| self.vcpu.get(usize::from(*vcpu.get_ref())).map(|v| v.vm);
        page.vm.or_else(|| page.vmsa_of.as_ref().and_then(of_vcpu)).unwrap_or(0)
    }

    /// VMs, ASIDs and pages of a special kind.
    pub(super) fn guests(&self) -> Checked<Guests> {
        if let Some(vms) = &self.vms {
            let count = *vms.get_ref();
            if count == 0 || usize::from(count) > MOST_VMS {
                return Err(at(vms, format!("vms = {count}: expected 1 to {MOST_VMS}")));
            }
            if !self.vm.is_empty() && usize::from(count) != self.vm.len() {
                let listed = self.vm.len();
                return Err(at(vms, format!("vms = {count}, but [[vm]] lists {listed}: leave `vms` out")));
            }
        }
        if self.vm.len() > MOST_VMS {
            return Err((Place::Key("[[vm]]"), format!("{} VMs: expected 1 to {MOST_VMS}", self.vm.len())));
        }
        let vms = self.vm_specs()?;
        let highest = vms.iter().map(|vm| vm.asid).max().unwrap_or(self.vm_count());
        let asids = match &self.asids {
            Some(asids) if *asids.get_ref() < highest || *asids.get_ref() > MOST_ASIDS => {
                let message = format!("asids = {}: expected {highest} to {MOST_ASIDS}", asids.get_ref());
                return Err(at(asids, message));
            }
            Some(asids) => *asids.get_ref(),
            None => highest.max(1),
        };
        let mut guests = Guests { vms, asids: asids + 1, ..Guests::default() };
        self.special_pages(&mut guests)?;
        Ok(guests)
    }

    fn vm_specs(&self) -> Checked<Vec<VmSpec>> {
        let mut vms: Vec<VmSpec> = Vec::new();
        let given: Vec<u16> = self.vm.iter().flat_map(|v| &v.asid).map(|asid| *asid.get_ref()).collect();
        for (i, vm) in self.vm.iter().enumerate() {
            let kind = match &vm.kind {
                None => VmKind::default(),
                Some(name) => VmKind::from_name(name.get_ref()).ok_or_else(|| {
                    let known: Vec<&str> = VmKind::ALL.iter().map(|k| k.name()).collect();
                    let message = format!("unknown kind '{}': known are {}", name.get_ref(), known.join(", "));
                    at(name, message)
                })?,
            };
            let asid = match (&vm.mirror_of, &vm.asid) {
                (Some(of), None) => match vms.get(usize::from(*of.get_ref())) {
                    None => {
                        let message = format!("mirror_of = {}: expected a VM listed before it", of.get_ref());
                        return Err(at(of, message));
                    }
                    Some(source) if source.kind != kind || kind == VmKind::Normal => {
                        let message = format!(
                            "a VM of kind {} cannot mirror one of kind {}: both are of the same encrypted kind",
                            kind.name(),
                            source.kind.name()
                        );
                        return Err(at(of, message));
                    }
                    Some(source) => source.asid,
                },
                (Some(_), Some(asid)) => {
                    return Err(at(asid, "a mirror has the ASID of the VM that it mirrors".to_owned()));
                }
                (None, Some(asid)) => {
                    let number = *asid.get_ref();
                    if number > MOST_ASIDS {
                        return Err(at(asid, format!("asid = {number}: expected 0 to {MOST_ASIDS}")));
                    }
                    if number != 0 && kind == VmKind::Normal {
                        return Err(at(asid, "a VM of kind normal has no ASID".to_owned()));
                    }
                    if number != 0 && vms.iter().any(|other| other.asid == number) {
                        let message = format!("ASID {number} is another VM's: `mirror_of` says that they share it");
                        return Err(at(asid, message));
                    }
                    number
                }
                (None, None) if kind == VmKind::Normal => 0,
                (None, None) => {
                    let free = |asid: &u16| !given.contains(asid) && !vms.iter().any(|vm| vm.asid == *asid);
                    (1..).find(free).unwrap_or(u16::try_from(i + 1).unwrap_or(1))
                }
            };
            vms.push(VmSpec { kind, asid });
        }
        Ok(vms)
    }

    fn special_pages(&self, guests: &mut Guests) -> Checked<()> {
        for (number, page) in (0u32..).zip(&self.pages) {
            let name = &page.name;
            if page.shared {
                guests.shared.push(number);
            }
            let Some(spanned) = &page.vmsa_of else { continue };
            let vcpu = *spanned.get_ref();
            let Some(of) = self.vcpu.get(usize::from(vcpu)) else {
                let message = format!("vmsa_of = {vcpu}: there are {} [[vcpu]], from 0", self.vcpu.len());
                return Err(at(spanned, message));
            };
            let kind = guests.vms.get(usize::from(of.vm)).map_or(VmKind::default(), |vm| vm.kind);
            if !kind.has_vmsa() {
                let message =
                    format!("vCPU {vcpu} has no VMSA: VM {} is of kind {}, not sev-es or sev-snp", of.vm, kind.name());
                return Err(at(spanned, message));
            }
            if page.vm.is_some_and(|vm| vm != of.vm) {
                let message = format!("page {name} is of another VM than vCPU {vcpu}, which is of VM {}", of.vm);
                return Err(at(spanned, message));
            }
            if page.shared || page.mapped {
                let message = format!("page {name} is a VMSA: no guest maps or shares it");
                return Err(at(spanned, message));
            }
            if guests.vmsa.iter().any(|(_, other)| other.0 == vcpu) {
                return Err(at(spanned, format!("vCPU {vcpu} has two VMSA pages")));
            }
            guests.vmsa.push((number, VcpuId(vcpu)));
        }
        Ok(())
    }
}
