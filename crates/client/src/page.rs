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
                let answer = self.get(path, &all).await?;
                let content = content(answer).ok_or_else(|| Failure::NoApi { url: self.base().clone(), status: 200 })?;
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

/// The resources of a page; `None`: the answer is of another server.
fn content(answer: Value) -> Option<Vec<Value>> {
    let Value::Object(mut page) = answer else { return None };
    match page.remove("content")? {
        Value::Array(content) => Some(content),
        _ => None,
    }
}
