//! Frames in pieces of any length, and bytes that are none.

use super::*;
use proptest::prelude::*;
use tokio::{
    io::{AsyncWriteExt as _, BufWriter, duplex},
    select,
    task::yield_now,
};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

/// A future that ends, unless it is cut: some of its polls are the last of it.
async fn cut<T>(future: impl Future<Output = T>, is_cut: bool) -> Option<T> {
    if !is_cut {
        return Some(future.await);
    }
    select! {
        biased;
        done = future => Some(done),
        () = yield_now() => None,
    }
}

fn frame() -> impl Strategy<Value = Frame<String>> {
    prop_oneof![Just(Frame::Beat), ".{0,60}".prop_map(Frame::Message)]
}

proptest! {
    #[test]
    fn frames_arrive_in_pieces_and_after_calls_that_were_cut(
        frames in prop::collection::vec(frame(), 0..8), piece in 1_usize..40, cuts: [bool; 13]
    ) {
        run(async {
            let (near, far) = duplex(piece);
            let (mut writer, mut reader) = (FrameWriter::new(near), FrameReader::new(far));
            let mut cuts = [cuts, cuts].into_iter().map(|cuts| cuts.into_iter().cycle());
            let (mut of_writer, mut of_reader) = (cuts.next().unwrap(), cuts.next().unwrap());
            let write = async {
                for frame in &frames {
                    writer.queue(frame).unwrap();
                    while !writer.is_empty() {
                        let done = cut(writer.advance(), of_writer.next().unwrap()).await;
                        done.transpose().unwrap();
                        yield_now().await;
                    }
                }
                writer.shut_down().await.unwrap();
            };
            let read = async {
                let mut read = Vec::new();
                loop {
                    while let Some(frame) = reader.take::<String>().unwrap() {
                        read.push(frame);
                    }
                    match cut(reader.fill(), of_reader.next().unwrap()).await {
                        None | Some(Ok(())) => yield_now().await,
                        Some(Err(end)) => return (read, end),
                    }
                }
            };
            let ((), (read, end)) = tokio::join!(write, read);
            assert_eq!(read, frames);
            assert!(matches!(end, ReadError::End), "{end:?}");
        });
    }
}

/// What a reader says of these bytes and the end of the stream after them.
fn refusal(bytes: &[u8]) -> String {
    run(async {
        let (mut near, far) = duplex(1 << 16);
        near.write_all(bytes).await.unwrap();
        drop(near);
        let mut reader = FrameReader::new(far);
        loop {
            match reader.take::<String>() {
                Ok(Some(_)) => {}
                Ok(None) => match reader.fill().await {
                    Ok(()) => {}
                    Err(ReadError::Io(error)) => return error.kind().to_string(),
                    Err(ReadError::End) => return "end".to_owned(),
                },
                Err(error) => return error.to_string(),
            }
        }
    })
}

#[test]
fn bytes_that_are_no_frame_are_refused_by_the_head_alone() {
    let head = |length: usize, kind| [&u32::try_from(length).unwrap().to_be_bytes()[..], &[kind]].concat();
    let cases = [
        (head(MAX_BODY + 1, MESSAGE), "longer than the 1048576"),
        (head(usize::try_from(u32::MAX).unwrap(), MESSAGE), "longer than the 1048576"),
        (head(1, BEAT), "a beat with a body of 1 bytes"),
        (head(0, 3), "unknown kind 3"),
        (head(MAX_BODY + 1, 0), "unknown kind 0"),
        (head(0, MESSAGE), "malformed"),
        ([head(2, MESSAGE), b"[]".to_vec()].concat(), "malformed"),
        // Cut: within a head, and before and within a body of a permitted length.
        (vec![0, 0, 0], "unexpected end of file"),
        (head(MAX_BODY, MESSAGE), "unexpected end of file"),
        ([head(0, BEAT), head(4, MESSAGE), b"\"a".to_vec()].concat(), "unexpected end of file"),
        ([head(0, BEAT), head(3, MESSAGE), b"\"a\"".to_vec()].concat(), "end"),
        (vec![], "end"),
    ];
    for (bytes, said) in cases {
        let refusal = refusal(&bytes);
        assert!(refusal.contains(said), "{bytes:?}: {refusal}");
    }
}

/// As an encrypting stream does.
#[test]
fn what_a_stream_keeps_back_is_flushed_part_by_part() {
    run(async {
        let (near, mut far) = duplex(4 * PART);
        let mut writer = FrameWriter::new(BufWriter::with_capacity(4 * PART, near));
        writer.queue(&Frame::Message("a".repeat(2 * PART))).unwrap();
        let length = writer.output.len();
        while !writer.is_empty() {
            writer.advance().await.unwrap();
            assert!(writer.stream.buffer().len() <= PART);
        }
        let mut bytes = vec![0; length];
        assert!(matches!(cut(far.read_exact(&mut bytes), true).await, Some(Ok(_))), "it was not flushed");
    });
}

#[test]
fn the_longest_message_is_carried_and_a_longer_one_is_not_begun() {
    run(async {
        let (near, far) = duplex(1 << 16);
        let (mut writer, mut reader) = (FrameWriter::new(near), FrameReader::new(far));
        let longest = Frame::Message("a".repeat(MAX_BODY - 2));
        assert!(matches!(
            writer.queue(&Frame::Message("a".repeat(MAX_BODY - 1))),
            Err(WireError::Long(length)) if length == MAX_BODY + 1
        ));
        assert!(writer.is_empty());
        writer.queue(&longest).unwrap();
        let write = async {
            while !writer.is_empty() {
                writer.advance().await.unwrap();
            }
        };
        let read = async {
            loop {
                if let Some(frame) = reader.take().unwrap() {
                    return frame;
                }
                reader.fill().await.unwrap();
            }
        };
        let ((), read) = tokio::join!(write, read);
        assert_eq!(read, longest);
    });
}
