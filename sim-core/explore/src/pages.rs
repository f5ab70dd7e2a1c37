//! Lists that grow page by page: what is in them never moves, and so what they take is what they hold.
//!
//! A search may end at any number of bytes. Lists that double would hold much that is empty, and leave behind what they
//! had before.

/// Items of a page: as many records as fit into it. So pages are of one size whatever records are, and one that is given
/// back is of use to the next.
pub(crate) const PER: usize = 1 << 10;

/// What a page takes beside its items: its place in the list of pages, and what the allocator keeps of it.
const HEAD: usize = size_of::<Vec<u8>>() + 16;

/// Records of some items each.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    /// Items of a record.
    stride: usize,
    /// All but the last are full. The first one grows from next to nothing, for many lists stay small.
    pages: Vec<Vec<T>>,
    /// Records.
    len: usize,
}

impl<T: Copy> Pages<T> {
    pub(crate) fn new(stride: usize) -> Self {
        Pages { stride, pages: Vec::new(), len: 0 }
    }

    /// Records.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> &[T] {
        self.get_of(at, self.stride)
    }

    /// Page, and place in it, of a record of so many items.
    #[inline]
    const fn place(at: usize, stride: usize) -> (usize, usize) {
        let per = PER / stride;
        (at / per, at % per * stride)
    }

    /// A record, of as many items as the caller knows records to have.
    #[inline]
    pub(crate) fn get_of(&self, at: usize, stride: usize) -> &[T] {
        let (page, place) = Self::place(at, stride);
        &self.pages[page][place..][..stride]
    }

    #[inline]
    pub(crate) fn get_mut_of(&mut self, at: usize, stride: usize) -> &mut [T] {
        let (page, place) = Self::place(at, stride);
        &mut self.pages[page][place..][..stride]
    }

    /// Adds a record, for which there is room.
    #[inline]
    pub(crate) fn push(&mut self, record: &[T]) {
        let (page, _) = Self::place(self.len, record.len());
        self.pages[page].extend_from_slice(record);
        self.len += 1;
    }

    /// Makes room for so many more records.
    pub(crate) fn reserve(&mut self, more: usize) {
        let records = self.len + more;
        if self.pages.is_empty() && more > 0 {
            self.pages.push(Vec::new());
        }
        let room = self.first_room(records);
        if let Some(first) = self.pages.first_mut()
            && first.capacity() < room
        {
            first.reserve_exact(room - first.len());
        }
        while self.pages.len() * self.per() < records {
            self.pages.push(Vec::with_capacity(self.per() * self.stride));
        }
    }

    /// Records of a page.
    const fn per(&self) -> usize {
        PER / self.stride
    }

    /// Items for which the first page of a list of so many records has room.
    fn first_room(&self, records: usize) -> usize {
        if records == 0 { 0 } else { records.next_power_of_two().min(self.per()) * self.stride }
    }

    /// Bytes that it takes once it has room for so many more records.
    pub(crate) fn bytes_with(&self, more: usize) -> u64 {
        let records = self.len + more;
        let pages = records.div_ceil(self.per()).max(self.pages.len());
        let first = self.pages.first().map_or(0, Vec::capacity).max(self.first_room(records));
        let items = first + pages.saturating_sub(1) * self.per() * self.stride;
        (items * size_of::<T>() + pages * HEAD) as u64
    }

    /// Records from a place up to another one, as many as lie together, but for none at the end.
    pub(crate) fn run(&self, from: usize, to: usize) -> &[T] {
        let (page, start) = Self::place(from, self.stride);
        let end = to.min((page + 1) * self.per());
        self.pages.get(page).map_or(&[], |page| &page[start..start + (end - from) * self.stride])
    }

    /// The items, page by page.
    pub(crate) fn pages(&self) -> impl Iterator<Item = &[T]> {
        self.pages.iter().map(Vec::as_slice)
    }

    /// The records in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &[T]> {
        self.pages.iter().flat_map(|page| page.chunks_exact(self.stride))
    }

    /// Moves a record to an earlier place.
    pub(crate) fn put_back(&mut self, from: usize, to: usize) {
        for item in 0..self.stride {
            let moved = self.get(from)[item];
            self.get_mut_of(to, self.stride)[item] = moved;
        }
    }

    /// Keeps the first so many records, and room for the others.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        let per = self.per();
        for (number, page) in self.pages.iter_mut().enumerate() {
            page.truncate(self.len.saturating_sub(number * per).min(per) * self.stride);
        }
    }

    /// Adds records that are one like the other, or takes some away, so that there are so many, and makes all alike.
    pub(crate) fn fill(&mut self, len: usize, record: &[T]) {
        self.truncate(0);
        self.reserve(len);
        let per = self.per();
        for page in &mut self.pages {
            let records = (len - self.len).min(per);
            page.extend(record.iter().copied().cycle().take(records * self.stride));
            self.len += records;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_found_again_and_takes_what_was_said() {
        for stride in [1, 3] {
            let mut list = Pages::<u32>::new(stride);
            assert_eq!((list.bytes_with(0), list.len()), (0, 0));
            let record = |at: u32| (0..3).map(|item| at * 3 + item).collect::<Vec<u32>>();
            let mut at = 0u32;
            for more in [1usize, 0, 7, 500, 516, 1, 3000, 1023] {
                let bytes = list.bytes_with(more);
                list.reserve(more);
                assert_eq!(list.bytes_with(0), bytes, "{more} more");
                let items: usize = list.pages.iter().map(Vec::capacity).sum();
                assert_eq!(bytes, (items * 4 + list.pages.len() * HEAD) as u64);
                for _ in 0..more {
                    list.push(&record(at)[..stride]);
                    at += 1;
                }
                assert_eq!(list.bytes_with(0), bytes, "nothing grew");
            }
            assert_eq!(list.len(), at as usize);
            let all: Vec<u32> = (0..at).flat_map(|at| record(at)[..stride].to_vec()).collect();
            assert_eq!(list.pages().flatten().copied().collect::<Vec<_>>(), all);
            assert!(list.records().enumerate().all(|(at, r)| r == &all[at * stride..][..stride]));
            for at in [0, 1, 1023, 1024, 4000] {
                assert_eq!(list.get(at), &all[at * stride..][..stride]);
            }
            let per = if stride == 1 { 1024 } else { 341 };
            assert_eq!(list.run(per - 24, 3000), &all[(per - 24) * stride..per * stride]);
            assert_eq!(list.run(per, per + 6), &all[per * stride..(per + 6) * stride]);
            list.put_back(4000, 2);
            assert_eq!(list.get(2), &all[4000 * stride..][..stride]);
            list.truncate(1024);
            assert_eq!((list.len(), list.pages().flatten().count()), (1024, 1024 * stride));
            list.push(&record(7)[..stride]);
            assert_eq!(list.get(1024), &record(7)[..stride]);
            list.fill(2000, &record(1)[..stride]);
            assert!(list.len() == 2000 && list.records().all(|r| *r == record(1)[..stride]));
            list.fill(10, &record(2)[..stride]);
            assert!(list.len() == 10 && list.records().all(|r| *r == record(2)[..stride]));
        }
    }
}
