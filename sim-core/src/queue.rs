//! The event queue: earliest time first, and among equal times by a tie that the caller gives.
//!
//! *Promise*: events come out in the order of (time, tie), exactly as a sorted list would give them, whatever order
//! they went in; those with equal time and tie in the order in which they went in. Nothing is allocated for an event once the queue has been as full before.
//!
//! How: a ring of one bucket a tick for the near future, with a bitmap of the buckets in use; a second ring of whole
//! turns of the first for what is farther away; a heap for the rest. A bucket is a list sorted by tie; an event
//! whose tie is the highest so far, the common case, is appended in constant time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Ticks that the near ring covers.
const NEAR: u64 = 1 << NEAR_BITS;
const NEAR_BITS: u32 = 13;
/// Turns of the near ring that the far ring covers.
const FAR: u64 = 256;
const WORDS: usize = NEAR as usize / 64;
const NONE: u32 = u32::MAX;

/// An event in a bucket; its time is the bucket's.
#[derive(Clone, Copy, Debug)]
struct Node<T> {
    tie: u64,
    next: u32,
    item: T,
}

/// The first and the last node of a bucket, [`NONE`] if it is empty.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    first: u32,
    last: u32,
}

impl Bucket {
    const EMPTY: Bucket = Bucket { first: NONE, last: NONE };
}

/// Events of one turn that is still far away, in no order.
#[derive(Clone, Debug)]
struct Turn<T> {
    events: Vec<(u64, u64, T)>,
    /// The least (time, tie) among them.
    least: u64,
}

/// An event beyond both rings, ordered by (time, tie, number) alone.
#[derive(Clone, Copy, Debug)]
struct Beyond<T> {
    order: (u64, u64, u64),
    item: T,
}

impl<T> PartialEq for Beyond<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Beyond<T> {}

impl<T> PartialOrd for Beyond<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Beyond<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// The queue. Time is in ticks (cycles) from 0 and never goes back: nothing may be put before what came out last.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    now: u64,
    /// The events of this very tick, taken out of their bucket.
    current: Bucket,
    near: Box<[Bucket; NEAR as usize]>,
    used: Box<[u64; WORDS]>,
    /// One bit a word of `used` that is not zero.
    summary: [u64; WORDS / 64],
    nodes: Vec<Node<T>>,
    /// The list of nodes in no bucket.
    free: u32,
    far: Vec<Turn<T>>,
    far_count: usize,
    beyond: BinaryHeap<Reverse<Beyond<T>>>,
    pushed_beyond: u64,
}

impl<T: Copy> Default for Queue<T> {
    fn default() -> Self {
        Queue::new()
    }
}

impl<T: Copy> Queue<T> {
    /// An empty queue at time 0.
    #[must_use]
    pub fn new() -> Queue<T> {
        Queue {
            now: 0,
            current: Bucket::EMPTY,
            near: Box::new([Bucket::EMPTY; NEAR as usize]),
            used: Box::new([0; WORDS]),
            summary: [0; WORDS / 64],
            nodes: Vec::new(),
            free: NONE,
            far: vec![Turn { events: Vec::new(), least: u64::MAX }; FAR as usize],
            far_count: 0,
            beyond: BinaryHeap::new(),
            pushed_beyond: 0,
        }
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next_time().is_none()
    }

    /// Puts an event in.
    ///
    /// # Panics
    /// A time before that of the event that came out last.
    #[inline]
    pub fn push(&mut self, at: u64, tie: u64, item: T) {
        if at.wrapping_sub(self.now).wrapping_sub(1) < NEAR - 1 {
            self.push_near(at, tie, item, true);
        } else {
            self.push_elsewhere(at, tie, item);
        }
    }

    /// An event of this very tick, or one that is far away.
    #[inline(never)]
    fn push_elsewhere(&mut self, at: u64, tie: u64, item: T) {
        assert!(at >= self.now, "an event at {at}, but it is {} already", self.now);
        if at != self.now {
            return self.push_far(at, tie, item);
        }
        let node = self.node(tie, item);
        let mut current = self.current;
        self.append(&mut current, node, tie, true);
        self.current = current;
    }

    /// A node for an event.
    #[inline(always)]
    fn node(&mut self, tie: u64, item: T) -> u32 {
        let node = self.free;
        let new = Node { tie, next: NONE, item };
        if let Some(slot) = self.nodes.get_mut(node as usize) {
            self.free = slot.next;
            *slot = new;
            return node;
        }
        self.grow(new)
    }

    #[cold]
    fn grow(&mut self, new: Node<T>) -> u32 {
        let node = u32::try_from(self.nodes.len()).unwrap_or(NONE);
        assert!(node != NONE, "more than 2^32 events");
        self.nodes.push(new);
        node
    }

    /// Puts a node into a bucket, behind its equals or (not `newest`) before them.
    #[inline(always)]
    fn append(&mut self, bucket: &mut Bucket, node: u32, tie: u64, newest: bool) {
        if bucket.first == NONE {
            *bucket = Bucket { first: node, last: node };
            return;
        }
        let last = &mut self.nodes[bucket.last as usize];
        if last.tie < tie || newest && last.tie == tie {
            last.next = node;
            bucket.last = node;
        } else {
            self.insert(bucket, node, tie, newest);
        }
    }

    /// Puts an event into the near ring, behind its equals or (not `newest`) before them.
    #[inline(always)]
    fn push_near(&mut self, at: u64, tie: u64, item: T, newest: bool) {
        let node = self.node(tie, item);
        let at = (at % NEAR) as usize;
        let mut bucket = self.near[at];
        // a bucket in use has its bits already
        if bucket.first == NONE {
            self.used[at / 64] |= 1 << (at % 64);
            self.summary[at / 4096] |= 1 << (at / 64 % 64);
        }
        self.append(&mut bucket, node, tie, newest);
        self.near[at] = bucket;
    }

    /// Puts a node into its place in a bucket that is not empty and does not end before it.
    #[cold]
    fn insert(&mut self, bucket: &mut Bucket, node: u32, tie: u64, newest: bool) {
        let mut before = NONE;
        let mut next = bucket.first;
        while next != NONE {
            let there = &self.nodes[next as usize];
            if there.tie > tie || !newest && there.tie == tie {
                break;
            }
            (before, next) = (next, there.next);
        }
        self.nodes[node as usize].next = next;
        if before == NONE {
            bucket.first = node;
        } else {
            self.nodes[before as usize].next = node;
        }
    }

    fn push_far(&mut self, at: u64, tie: u64, item: T) {
        if at / NEAR - self.now / NEAR >= FAR {
            self.pushed_beyond += 1;
            let order = (at, tie, self.pushed_beyond);
            self.beyond.push(Reverse(Beyond { order, item }));
            return;
        }
        let turn = &mut self.far[(at / NEAR % FAR) as usize];
        turn.least = turn.least.min(at);
        turn.events.push((at, tie, item));
        self.far_count += 1;
    }

    /// The next event: its time and itself.
    #[inline]
    pub fn pop(&mut self) -> Option<(u64, T)> {
        if self.current.first == NONE {
            self.advance()?;
        }
        let node = self.current.first;
        let slot = &mut self.nodes[node as usize];
        self.current.first = slot.next;
        slot.next = self.free;
        self.free = node;
        Some((self.now, slot.item))
    }

    /// Moves on to the next tick that has an event, and takes its events out of their bucket.
    #[inline(never)]
    fn advance(&mut self) -> Option<()> {
        loop {
            let at = (self.now % NEAR) as usize;
            if let Some(found) = self.used_from(at) {
                self.now += (found - at) as u64;
                self.current = std::mem::replace(&mut self.near[found], Bucket::EMPTY);
                let used = &mut self.used[found / 64];
                *used &= !(1 << (found % 64));
                self.summary[found / 4096] &= !(u64::from(*used == 0) << (found / 64 % 64));
                return Some(());
            }
            // the rest of the ring belongs to the next turn
            let turn = self.now / NEAR;
            let near = self.used_from(0).map(|_| turn + 1);
            let far = self.first_far().map(|t| t / NEAR);
            let beyond = self.beyond.peek().map(|e| e.0.order.0 / NEAR);
            let next = [near, far, beyond].into_iter().flatten().min()?;
            self.now = next * NEAR;
            self.enter(next);
        }
    }

    /// A turn of the near ring begins: what waited for it comes near.
    fn enter(&mut self, turn: u64) {
        let far = &mut self.far[(turn % FAR) as usize];
        far.least = u64::MAX;
        let mut events = std::mem::take(&mut far.events);
        self.far_count -= events.len();
        // what comes from afar was put in before its equals that are near already, and from farther still earlier
        for (at, tie, item) in events.drain(..).rev() {
            self.push_near(at, tie, item, false);
        }
        self.far[(turn % FAR) as usize].events = events;
        let mut last = Vec::new();
        while let Some(event) = self.beyond.peek()
            && event.0.order.0 / NEAR == turn
        {
            last.push(event.0);
            self.beyond.pop();
        }
        for Beyond { order: (at, tie, _), item } in last.into_iter().rev() {
            self.push_near(at, tie, item, false);
        }
    }

    /// The first bucket in use at this place of the ring or behind it.
    #[inline]
    fn used_from(&self, at: usize) -> Option<usize> {
        let word = at / 64;
        let here = self.used[word] & (u64::MAX << (at % 64));
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        let from = word + 1;
        for group in from / 64..WORDS / 64 {
            let mask = if group == from / 64 { u64::MAX << (from % 64) } else { u64::MAX };
            let words = self.summary[group] & mask;
            if words != 0 {
                let word = group * 64 + words.trailing_zeros() as usize;
                return Some(word * 64 + self.used[word].trailing_zeros() as usize);
            }
        }
        None
    }

    /// The earliest time in the far ring.
    fn first_far(&self) -> Option<u64> {
        if self.far_count == 0 {
            return None;
        }
        let turn = self.now / NEAR;
        (1..FAR).map(|d| self.far[((turn + d) % FAR) as usize].least).find(|least| *least != u64::MAX)
    }

    /// The time of the next event.
    #[must_use]
    pub fn next_time(&self) -> Option<u64> {
        if self.current.first != NONE {
            return Some(self.now);
        }
        let at = (self.now % NEAR) as usize;
        if let Some(found) = self.used_from(at) {
            return Some(self.now + (found - at) as u64);
        }
        let turn = self.now / NEAR;
        let near = self.used_from(0).map(|found| (turn + 1) * NEAR + found as u64);
        let beyond = self.beyond.peek().map(|e| e.0.order.0);
        [near, self.first_far(), beyond].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mixture of near, far and very far events comes out as from a sorted list, and every peek is right.
    #[test]
    fn order_is_that_of_a_sorted_list() {
        for scale in [3u64, 700, 90_000, 40_000_000] {
            let mut queue = Queue::new();
            let mut list: Vec<(u64, u64, u64, u32)> = Vec::new();
            let (mut x, mut now, mut pushed) = (scale, 0, 0);
            let mut random = || {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x >> 11
            };
            for step in 0..30_000u32 {
                let push = list.is_empty() || random() % 100 < if step < 20_000 { 52 } else { 20 };
                if push {
                    let delay = if random() % 10 == 0 { random() % (scale * 50) } else { random() % scale };
                    let tie = random() % 5;
                    pushed += 1;
                    queue.push(now + delay, tie, step);
                    let new = (now + delay, tie, pushed, step);
                    list.insert(list.partition_point(|e| *e < new), new);
                } else {
                    let (at, _, _, item) = list.remove(0);
                    assert_eq!(queue.next_time(), Some(at));
                    assert_eq!(queue.pop(), Some((at, item)), "step {step}, scale {scale}");
                    now = at;
                }
                assert_eq!(queue.is_empty(), list.is_empty());
            }
        }
    }

    #[test]
    fn letters_pushed_at_mixed_times_spell_a_word() {
        let mut queue = Queue::new();
        for (at, tie, letter) in
            [(9, 2, 's'), (5, 7, 'e'), (5, 7, 'u'), (0, 1, 'u'), (9, 1, 'e'), (0, 0, 'q')]
        {
            queue.push(at, tie, letter);
        }
        let word: String = std::iter::from_fn(|| queue.pop()).map(|(_, letter)| letter).collect();
        assert_eq!(word, "queues");
        assert_eq!((queue.pop(), queue.next_time(), queue.is_empty()), (None, None, true));
    }

    #[test]
    #[should_panic(expected = "it is 7 already")]
    fn the_past_is_closed() {
        let mut queue = Queue::new();
        queue.push(7, 0, ());
        queue.pop();
        queue.push(6, 0, ());
    }
}
