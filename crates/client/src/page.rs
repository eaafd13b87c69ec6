//! Lists, page by page.

use futures_util::Stream;
use serde_json::Value;

use crate::{ApiClient, Failure};

/// Resources of a page: the most that the API gives.
const SIZE: usize = 1000;
/// Resources of the first page: few, so that the first lines are there at once.
const FIRST: usize = 100;

impl ApiClient {
    /// All resources of a list, in constant memory: a page is read when the one before it was taken. `most`: no more than
    /// these are read.
    pub fn list<'a>(
        &'a self,
        path: &'a str,
        query: &'a [(String, String)],
        most: Option<usize>,
    ) -> impl Stream<Item = Result<Value, Failure>> + 'a {
        async_stream::try_stream! {
            let mut left = most.unwrap_or(usize::MAX);
            let mut size = FIRST.min(left);
            let (mut page, mut skip) = (0, 0);
            while left > 0 {
                let mut all = query.to_vec();
                all.extend([("page".to_owned(), page.to_string()), ("size".to_owned(), size.to_string())]);
                let mut answer = self.get(path, &all).await?;
                let content = answer["content"].as_array_mut().map(std::mem::take).unwrap_or_default();
                let is_last = content.len() < size;
                for resource in content.into_iter().skip(skip).take(left) {
                    left -= 1;
                    yield resource;
                }
                if is_last {
                    break;
                }
                // The first large page begins with what the small one had.
                (page, skip) = if size < SIZE { (0, size) } else { (page + 1, 0) };
                size = SIZE;
            }
        }
    }
}
