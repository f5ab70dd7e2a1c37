//! The front matter's VMs, and pages of a special kind.

use serde::Deserialize;
use sev_arch::VcpuId;
use svm_model::spec::{Guests, VmKind, VmSpec};
use toml::Spanned;

use super::front::{Front, PageFront, VcpuFront};

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
        let of_vcpu = |vcpu: &Spanned<u16>| self.vcpu.get(usize::from(*vcpu.get_ref())).map(VcpuFront::vm);
        page.vm
            .as_ref()
            .map(|vm| *vm.get_ref())
            .or_else(|| page.vmsa_of.as_ref().and_then(of_vcpu))
            .unwrap_or(0)
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
                    let message =
                        format!("unknown kind '{}': known are {}", name.get_ref(), known.join(", "));
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
                        let message =
                            format!("ASID {number} is another VM's: `mirror_of` says that they share it");
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
            let name = page.name();
            if page.shared {
                guests.shared.push(number);
            }
            let Some(spanned) = &page.vmsa_of else { continue };
            let vcpu = *spanned.get_ref();
            let Some(of) = self.vcpu.get(usize::from(vcpu)) else {
                let message = format!("vmsa_of = {vcpu}: there are {} [[vcpu]], from 0", self.vcpu.len());
                return Err(at(spanned, message));
            };
            let kind = guests.vms.get(usize::from(of.vm())).map_or(VmKind::default(), |vm| vm.kind);
            if !kind.has_vmsa() {
                let message = format!(
                    "vCPU {vcpu} has no VMSA: VM {} is of kind {}, not sev-es or sev-snp",
                    of.vm(),
                    kind.name()
                );
                return Err(at(spanned, message));
            }
            if page.vm.as_ref().is_some_and(|vm| *vm.get_ref() != of.vm()) {
                let message =
                    format!("page {name} is of another VM than vCPU {vcpu}, which is of VM {}", of.vm());
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

#[cfg(test)]
mod tests {
    use super::super::Litmus;

    fn parse(middle: &str) -> Result<Litmus, super::super::LitmusError> {
        let text = format!(
            "+++\ndescription = \"x\"\nparts = [\"rome\"]\npcpus = 1\n{middle}\n[[task]]\nrun = \"t\"\npcpus = \
             [0]\n\n[[vcpu]]\nvm = 0\nguest = \"g\"\npcpus = [0]\n\n[[expect]]\nverdict = \"holds\"\npolicies = \
             [\"*\"]\n+++\nvoid t(void) {{}}\nvoid g(void) {{}}\n"
        );
        Litmus::parse("x.litmus", &text)
    }

    #[test]
    fn asids_are_the_lowest_that_are_free() {
        let pages = "pages = [{ name = \"P\" }]\n";
        let asids = |vms: &str| {
            let spec = parse(&format!("{pages}{vms}")).unwrap_or_else(|e| panic!("{e}")).spec(false);
            let asids: Vec<u16> = (0..spec.vms).map(|vm| spec.vm(sev_arch::VmId(vm)).asid).collect();
            assert_eq!(u16::from(spec.shape.tags), spec.asids());
            (asids, spec.asids())
        };
        assert_eq!(asids(""), (vec![1], 2));
        let three = |rest: [&str; 3]| rest.map(|r| format!("[[vm]]\n{r}\n")).concat();
        assert_eq!(asids(&three(["", "", ""])), (vec![1, 2, 3], 4));
        assert_eq!(asids(&three(["asid = 2", "mirror_of = 0", ""])), (vec![2, 2, 1], 3));
        assert_eq!(asids(&three(["kind = \"normal\"", "asid = 0", ""])), (vec![0, 0, 1], 2));
        let spec = parse(&format!("vms = 3\nasids = 5\n{pages}")).unwrap().spec(false);
        assert_eq!((spec.vms, spec.asids(), spec.shape.tags), (3, 6, 6));
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_place() {
        let page = "pages = [{ name = \"P\" }]\n";
        let es = "[[vm]]\nkind = \"sev-es\"";
        let vmsa = |page: &str| format!("pages = [{{ name = \"V\", {page} }}]\n{es}");
        let cases = [
            (format!("vms = 9\n{page}"), 5, 7, "1 to 6"),
            (format!("vms = 2\n{page}[[vm]]"), 5, 7, "lists 1"),
            (format!("{page}[[vm]]\nkind = \"sgx\""), 7, 8, "unknown kind 'sgx'"),
            (format!("{page}[[vm]]\nasid = 9"), 7, 8, "0 to 8"),
            (format!("{page}[[vm]]\nkind = \"normal\"\nasid = 1"), 8, 8, "has no ASID"),
            (format!("{page}[[vm]]\nmirror_of = 0"), 7, 13, "listed before"),
            (format!("{page}[[vm]]\n[[vm]]\nmirror_of = 0\nasid = 1"), 9, 8, "has the ASID of"),
            (format!("{page}{es}\n[[vm]]\nmirror_of = 0"), 9, 13, "cannot mirror"),
            (format!("{page}[[vm]]\nasid = 1\n[[vm]]\nasid = 1"), 9, 8, "another VM's"),
            (format!("asids = 1\nvms = 2\n{page}"), 5, 9, "expected 2 to 8"),
            (vmsa("vmsa_of = 1"), 5, 34, "there are 1"),
            (vmsa("vmsa_of = 0, mapped = true"), 5, 34, "no guest maps"),
            (vmsa("vmsa_of = 0, vm = 1"), 5, 34, "of another VM"),
            (vmsa("vmsa_of = 0 }, { name = \"W\", vmsa_of = 0"), 5, 63, "two VMSA"),
            ("pages = [{ name = \"V\", vmsa_of = 0 }]".to_owned(), 5, 34, "not sev-es or sev-snp"),
            (format!("{page}[[vm]]\nfirmware = 1"), 7, 1, "unknown field"),
        ];
        for (middle, line, column, words) in cases {
            let e = parse(&middle).expect_err(&middle);
            assert!(e.message.contains(words), "{e}");
            assert_eq!((e.line, e.column), (line, column), "{e}");
        }
    }
}
