//! CPUID leaves, from the CPU or from a text, and what they say.
//!
//! *Promise*: no leaf above the maximum that the CPU names is believed: past it, some answer with other bits.

use std::collections::BTreeMap;

/// EAX, EBX, ECX, EDX.
pub type Leaf = [u32; 4];

/// Where leaves come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cpuid {
    /// The CPU that this runs on.
    Cpu,
    /// A table, for tests: (leaf, subleaf).
    Table(BTreeMap<(u32, u32), Leaf>),
}

#[cfg(target_arch = "x86_64")]
fn raw(leaf: u32, sub: u32) -> Leaf {
    #[allow(unsafe_code, unused_unsafe, reason = "an unsafe function before Rust 1.93")]
    // SAFETY: every x86-64 has CPUID, and it touches nothing but its four registers.
    let r = unsafe { core::arch::x86_64::__cpuid_count(leaf, sub) };
    [r.eax, r.ebx, r.ecx, r.edx]
}

#[cfg(not(target_arch = "x86_64"))]
fn raw(_leaf: u32, _sub: u32) -> Leaf {
    [0; 4]
}

/// A cache that leaf `8000_001D` describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheLeaf {
    /// 1, 2 or 3.
    pub level: u32,
    /// Whether it holds data (not code alone).
    pub data: bool,
    /// Capacity.
    pub bytes: u64,
    /// Ways.
    pub ways: u32,
    /// Most hardware threads that share it.
    pub sharers: u32,
    /// EDX\[0\]: 1 says that a WBINVD does *not* promise to cover lower caches of the other sharers.
    pub wbinvd_own_core_only: bool,
    /// EDX\[1\]: it holds all that the lower levels hold.
    pub inclusive: bool,
}

/// What leaf `8000_001F` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncryptionLeaf {
    /// All of EAX.
    pub eax: u32,
    /// EAX\[1\].
    pub sev: bool,
    /// EAX\[3\].
    pub sev_es: bool,
    /// EAX\[4\].
    pub sev_snp: bool,
    /// EAX\[10\].
    pub sme_coherent: bool,
    /// EBX\[5:0\].
    pub c_bit: u32,
    /// ECX: ASIDs of encrypted guests are 1 to this.
    pub asids: u32,
    /// EDX: the first ASID of a SEV guest; those below are of SEV-ES and SEV-SNP guests.
    pub first_sev_asid: u32,
}

impl Cpuid {
    /// Reads a table: `LEAF SUBLEAF EAX EBX ECX EDX` a line, in hexadecimal without `0x`; `#` begins a comment.
    ///
    /// # Errors
    /// Names the line.
    pub fn parse(text: &str) -> Result<Cpuid, String> {
        let mut table = BTreeMap::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let words: Vec<u32> = line
                .split_whitespace()
                .map(|w| u32::from_str_radix(w, 16))
                .collect::<Result<_, _>>()
                .map_err(|e| format!("line {}: {e}", n + 1))?;
            let [leaf, sub, eax, ebx, ecx, edx] = words[..] else {
                return Err(format!("line {}: expected LEAF SUBLEAF EAX EBX ECX EDX", n + 1));
            };
            table.insert((leaf, sub), [eax, ebx, ecx, edx]);
        }
        Ok(Cpuid::Table(table))
    }

    fn any(&self, leaf: u32, sub: u32) -> Leaf {
        match self {
            Cpuid::Cpu => raw(leaf, sub),
            Cpuid::Table(table) => table.get(&(leaf, sub)).copied().unwrap_or_default(),
        }
    }

    /// The largest leaf of the range that `leaf` belongs to.
    #[must_use]
    pub fn max(&self, leaf: u32) -> u32 {
        self.any(leaf & 0xc000_0000, 0)[0]
    }

    /// A leaf, unless it is above the maximum.
    #[must_use]
    pub fn leaf(&self, leaf: u32, sub: u32) -> Option<Leaf> {
        (leaf <= self.max(leaf)).then(|| self.any(leaf, sub))
    }

    fn bit(&self, leaf: u32, register: usize, bit: u32) -> bool {
        self.leaf(leaf, 0).is_some_and(|l| l[register] >> bit & 1 == 1)
    }

    fn text(&self, leaves: &[(u32, &[usize])]) -> String {
        let mut bytes = Vec::new();
        for (leaf, registers) in leaves {
            let Some(values) = self.leaf(*leaf, 0) else { return String::new() };
            bytes.extend(registers.iter().flat_map(|r| values[*r].to_le_bytes()));
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
    }

    /// The processor's name.
    #[must_use]
    pub fn brand(&self) -> String {
        const ALL: &[usize] = &[0, 1, 2, 3];
        self.text(&[(0x8000_0002, ALL), (0x8000_0003, ALL), (0x8000_0004, ALL)])
    }

    /// The vendor, as `AuthenticAMD`.
    #[must_use]
    pub fn vendor(&self) -> String {
        self.text(&[(0, &[1, 3, 2])])
    }

    /// Family, model, stepping.
    #[must_use]
    pub fn family(&self) -> (u32, u32, u32) {
        let eax = self.leaf(1, 0).unwrap_or_default()[0];
        let (family, model) = (eax >> 8 & 15, eax >> 4 & 15);
        if family < 15 {
            return (family, model, eax & 15);
        }
        (family + (eax >> 20 & 255), model | eax >> 12 & 0xf0, eax & 15)
    }

    /// The hypervisor's signature, if one says that it is there.
    #[must_use]
    pub fn hypervisor(&self) -> Option<String> {
        if !self.bit(1, 2, 31) {
            return None;
        }
        // These leaves have a range of their own.
        let [_, ebx, ecx, edx] = self.any(0x4000_0000, 0);
        let bytes: Vec<u8> = [ebx, ecx, edx].iter().flat_map(|r| r.to_le_bytes()).collect();
        let name: String = String::from_utf8_lossy(&bytes).chars().filter(|c| c.is_ascii_graphic()).collect();
        Some(if name.is_empty() { "unnamed".to_owned() } else { name })
    }

    /// `8000_0001` ECX\[2\].
    #[must_use]
    pub fn svm(&self) -> bool {
        self.bit(0x8000_0001, 2, 2)
    }

    /// `1` ECX\[5\]: VMX, what Intel has in the place of SVM.
    #[must_use]
    pub fn vmx(&self) -> bool {
        self.bit(1, 2, 5)
    }

    /// `8000_0007` EDX\[8\]: the TSC runs at one rate, always.
    #[must_use]
    pub fn invariant_tsc(&self) -> bool {
        self.bit(0x8000_0007, 3, 8)
    }

    /// `8000_0001` EDX\[27\]: RDTSCP.
    #[must_use]
    pub fn rdtscp(&self) -> bool {
        self.bit(0x8000_0001, 3, 27)
    }

    /// `8000_0008` EBX\[9\].
    #[must_use]
    pub fn wbnoinvd(&self) -> bool {
        self.bit(0x8000_0008, 1, 9)
    }

    /// `8000_0008` EBX\[13\]: WBINVD and WBNOINVD can be interrupted.
    #[must_use]
    pub fn int_wbinvd(&self) -> bool {
        self.bit(0x8000_0008, 1, 13)
    }

    /// `7` EBX\[23\].
    #[must_use]
    pub fn clflushopt(&self) -> bool {
        self.bit(7, 1, 23)
    }

    /// `7` EBX\[24\].
    #[must_use]
    pub fn clwb(&self) -> bool {
        self.bit(7, 1, 24)
    }

    /// The caches of leaf `8000_001D`.
    #[must_use]
    pub fn caches(&self) -> Vec<CacheLeaf> {
        let leaves = (0..8).map_while(|sub| self.leaf(0x8000_001d, sub).filter(|l| l[0] & 31 != 0));
        let cache = |[eax, ebx, ecx, edx]: Leaf| {
            let ways = (ebx >> 22) + 1;
            let parts = u64::from((ebx >> 12 & 0x3ff) + 1) * u64::from((ebx & 0xfff) + 1);
            CacheLeaf {
                level: eax >> 5 & 7,
                data: eax & 31 != 2,
                bytes: u64::from(ways) * parts * (u64::from(ecx) + 1),
                ways,
                sharers: (eax >> 14 & 0xfff) + 1,
                wbinvd_own_core_only: edx & 1 == 1,
                inclusive: edx >> 1 & 1 == 1,
            }
        };
        leaves.map(cache).collect()
    }

    /// Leaf `8000_001F`.
    #[must_use]
    pub fn encryption(&self) -> Option<EncryptionLeaf> {
        let [eax, ebx, ecx, edx] = self.leaf(0x8000_001f, 0)?;
        let bit = |n: u32| eax >> n & 1 == 1;
        Some(EncryptionLeaf {
            eax,
            sev: bit(1),
            sev_es: bit(3),
            sev_snp: bit(4),
            sme_coherent: bit(10),
            c_bit: ebx & 63,
            asids: ecx,
            first_sev_asid: edx,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILAN: &str = "
        80000000 0 80000023 0 0 0
        00000001 0 00a00f11 0 0 0
        00000000 0 10 68747541 444d4163 69746e65
        80000008 0 3030 2200 0 0
        8000001d 0 121 1c0003f 3f 0   # L1D 32 KiB
        8000001d 3 c163 3c0003f 7fff 1 # L3 32 MiB, after a hole that ends the list
        8000001f 0 101fd3f 4173 1fd 1";

    #[test]
    fn leaves_are_read_to_the_bit() {
        let cpuid = Cpuid::parse(MILAN).unwrap();
        let sev = cpuid.encryption().unwrap();
        assert!(sev.sev && sev.sev_es && sev.sev_snp && sev.sme_coherent);
        assert_eq!((sev.c_bit, sev.asids, sev.first_sev_asid), (51, 509, 1));
        assert_eq!((cpuid.family(), cpuid.vendor().as_str()), ((25, 1, 1), "AuthenticAMD"));
        assert!(cpuid.wbnoinvd() && cpuid.int_wbinvd() && cpuid.hypervisor().is_none());
        let caches = cpuid.caches();
        assert_eq!((caches.len(), caches[0].bytes, caches[0].ways), (1, 32 << 10, 8));
    }

    #[test]
    fn a_leaf_above_the_maximum_is_not_believed() {
        let cpuid = Cpuid::parse(&MILAN.replace("80000023", "8000000a")).unwrap();
        assert_eq!(cpuid.encryption(), None);
        assert!(cpuid.caches().is_empty());
        assert!(Cpuid::parse("1 2").unwrap_err().contains("line 1"));
    }
}
