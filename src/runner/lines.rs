//! Lines of a stream that nobody promised has any, in bounded memory.

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Reads lines of at most `limit` bytes; what a longer one has beyond that is thrown away.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    limit: usize,
    line: Vec<u8>,
    cut: bool,
    done: bool,
}

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) bytes: Vec<u8>,
    /// It was longer.
    pub(crate) cut: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(stream: R, limit: usize) -> Self {
        Self { reader: BufReader::new(stream), limit, line: Vec::new(), cut: false, done: false }
    }

    /// The next line, `None` at the end of the stream or when it can no longer be read. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        while !self.done {
            let Ok(buffer) = self.reader.fill_buf().await else {
                self.done = true;
                break;
            };
            if buffer.is_empty() {
                self.done = true;
                break;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let taken = part.len().min(self.limit - self.line.len());
            self.line.extend_from_slice(&part[..taken]);
            self.cut |= taken < part.len();
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Some(self.take());
            }
        }
        (!self.line.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Line {
        Line { bytes: std::mem::take(&mut self.line), cut: std::mem::take(&mut self.cut) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], limit: usize) -> Vec<Line> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lines = Lines::new(bytes, limit);
            let mut all = Vec::new();
            while let Some(line) = lines.next().await {
                all.push(line);
            }
            all
        })
    }

    #[test]
    fn an_endless_line_takes_no_more_than_its_limit() {
        let bytes = [vec![b'x'; 1 << 20], b"\nnext".to_vec()].concat();
        let lines = read(&bytes, 100);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].bytes.len(), lines[0].cut), (100, true));
        assert_eq!(lines[1], Line { bytes: b"next".to_vec(), cut: false });
    }

    proptest! {
        #[test]
        fn lines_are_what_splitting_gives(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300), limit in 1_usize..40) {
            let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            let lines = read(&bytes, limit);
            prop_assert_eq!(lines.len(), expected.len());
            for (line, whole) in lines.iter().zip(expected) {
                prop_assert_eq!(&line.bytes[..], &whole[..whole.len().min(limit)]);
                prop_assert_eq!(line.cut, whole.len() > limit);
            }
        }
    }
}
