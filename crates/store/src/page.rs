//! A page of a list.

/// A page's `number`, from 0, of `size` rows each. The caller checks the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    pub number: u64,
    pub size: u32,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { number: 0, size: 20 }
    }
}

impl PageRequest {
    pub(crate) fn offset(self) -> i64 {
        i64::try_from(self.number.saturating_mul(self.size.into())).unwrap_or(i64::MAX)
    }

    /// The page of rows that are all in memory, in their order.
    pub fn of<T>(self, rows: Vec<T>) -> Page<T> {
        let total = rows.len().try_into().unwrap_or(u64::MAX);
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let skipped = usize::try_from(self.number).unwrap_or(usize::MAX).saturating_mul(size);
        Page { rows: rows.into_iter().skip(skipped).take(size).collect(), total }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Rows on all pages.
    pub total: u64,
}
