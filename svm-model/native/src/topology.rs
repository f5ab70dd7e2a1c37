//! Which pCPUs share what, from sysfs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One pCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pcpu {
    /// Its number.
    pub id: usize,
    /// Socket.
    pub package: usize,
    /// The threads of its core, itself included.
    pub core: BTreeSet<usize>,
    /// The pCPUs that share its L3; by `shared_cpu_list`, since ids are not to be trusted everywhere.
    pub l3: BTreeSet<usize>,
}

/// How two pCPUs are to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distance {
    /// Threads of one core.
    Sibling,
    /// Cores that share an L3.
    SameCcx,
    /// Of one socket.
    OtherCcx,
    /// Of two sockets.
    OtherSocket,
}

/// The online pCPUs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// In the order of their numbers.
    pub pcpus: Vec<Pcpu>,
    /// NUMA nodes: number and pCPUs; empty on a kernel without.
    pub nodes: Vec<(usize, BTreeSet<usize>)>,
}

/// `0-2,8` as numbers.
#[must_use]
pub fn list(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<usize>().ok()?..=to.trim().parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

impl Topology {
    /// Reads `sys` below a root, `/` on a real host.
    #[must_use]
    pub fn read(root: &Path) -> Topology {
        let base = root.join("sys/devices/system/cpu");
        let text = |path: &Path| fs::read_to_string(path).ok();
        let online = text(&base.join("online")).map_or_else(BTreeSet::new, |t| list(&t));
        let pcpu = |id: usize| {
            let cpu = base.join(format!("cpu{id}"));
            let own = || BTreeSet::from([id]);
            let core = text(&cpu.join("topology/thread_siblings_list")).map_or_else(own, |t| list(&t));
            let package = text(&cpu.join("topology/physical_package_id"));
            let l3 = (0..8).map(|n| cpu.join(format!("cache/index{n}"))).find_map(|index| {
                let level = text(&index.join("level"))?;
                (level.trim() == "3").then(|| text(&index.join("shared_cpu_list")).map(|t| list(&t)))?
            });
            let package = package.and_then(|t| t.trim().parse().ok()).unwrap_or(0);
            Pcpu { id, package, l3: l3.unwrap_or_else(|| core.clone()), core }
        };
        let nodes = root.join("sys/devices/system/node");
        let known = text(&nodes.join("online")).map_or_else(BTreeSet::new, |t| list(&t));
        let node = |id: usize| {
            let cpus =
                text(&nodes.join(format!("node{id}/cpulist"))).map_or_else(BTreeSet::new, |t| list(&t));
            (id, cpus)
        };
        Topology {
            pcpus: online.into_iter().map(pcpu).collect(),
            nodes: known.into_iter().map(node).collect(),
        }
    }

    /// One of the pCPUs.
    #[must_use]
    pub fn pcpu(&self, id: usize) -> Option<&Pcpu> {
        self.pcpus.iter().find(|p| p.id == id)
    }

    /// A NUMA node with pCPUs of another socket than `id`'s.
    #[must_use]
    pub fn remote_node(&self, id: usize) -> Option<usize> {
        let home = self.pcpu(id)?.package;
        let other =
            |cpus: &BTreeSet<usize>| cpus.iter().any(|c| self.pcpu(*c).is_some_and(|p| p.package != home));
        self.nodes.iter().find(|(_, cpus)| other(cpus)).map(|(node, _)| *node)
    }

    /// The first thread of each core among `allowed` for which `wanted` holds.
    #[must_use]
    pub fn one_a_core(&self, allowed: &[usize], wanted: impl Fn(&Pcpu) -> bool) -> Vec<usize> {
        let first = |p: &&Pcpu| p.core.iter().find(|c| allowed.contains(c)) == Some(&p.id);
        self.pcpus.iter().filter(first).filter(|p| wanted(p)).map(|p| p.id).collect()
    }

    /// How two pCPUs are to each other.
    #[must_use]
    pub fn distance(a: &Pcpu, b: &Pcpu) -> Distance {
        match () {
            () if a.core.contains(&b.id) => Distance::Sibling,
            () if a.l3.contains(&b.id) => Distance::SameCcx,
            () if a.package == b.package => Distance::OtherCcx,
            () => Distance::OtherSocket,
        }
    }

    /// Two pCPUs of `allowed` at that distance.
    #[must_use]
    pub fn pair(&self, distance: Distance, allowed: &[usize]) -> Option<(usize, usize)> {
        let pcpus = || self.pcpus.iter().filter(|p| allowed.contains(&p.id));
        pcpus().find_map(|a| {
            let other = pcpus().find(|b| b.id > a.id && Topology::distance(a, b) == distance)?;
            Some((a.id, other.id))
        })
    }

    /// L3 domains (CCXs).
    #[must_use]
    pub fn l3s(&self) -> usize {
        self.pcpus.iter().map(|p| &p.l3).collect::<BTreeSet<_>>().len()
    }

    /// Cores.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.pcpus.iter().map(|p| &p.core).collect::<BTreeSet<_>>().len()
    }

    /// Sockets.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.pcpus.iter().map(|p| p.package).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(list("0-2,8\n").into_iter().collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert!(list("\n").is_empty());
    }

    #[test]
    fn distances() {
        let set = |ids: &[usize]| ids.iter().copied().collect::<BTreeSet<_>>();
        let pcpu = |id: usize, package, core: &[usize], l3: &[usize]| Pcpu {
            id,
            package,
            core: set(core),
            l3: set(l3),
        };
        let all = [0, 1, 2, 3, 4];
        let topology = Topology {
            pcpus: vec![
                pcpu(0, 0, &[0, 1], &[0, 1, 2]),
                pcpu(1, 0, &[0, 1], &[0, 1, 2]),
                pcpu(2, 0, &[2], &[0, 1, 2]),
                pcpu(3, 0, &[3], &[3]),
                pcpu(4, 1, &[4], &[4]),
            ],
            nodes: vec![(0, set(&[0, 1, 2, 3])), (1, set(&[4]))],
        };
        assert_eq!(topology.pair(Distance::Sibling, &all), Some((0, 1)));
        assert_eq!(topology.pair(Distance::SameCcx, &all), Some((0, 2)));
        assert_eq!(topology.pair(Distance::OtherCcx, &all), Some((0, 3)));
        assert_eq!(topology.pair(Distance::OtherSocket, &[0, 1]), None);
        assert_eq!((topology.l3s(), topology.cores(), topology.sockets()), (3, 4, 2));
        assert_eq!(
            (topology.remote_node(2), topology.remote_node(4), topology.remote_node(9)),
            (Some(1), Some(0), None)
        );
        assert_eq!(topology.one_a_core(&all, |p| p.package == 0), [0, 2, 3]);
        assert_eq!(topology.one_a_core(&[1, 2], |_| true), [1, 2], "its first thread is not ours to use");
    }
}
