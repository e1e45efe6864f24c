//! Requests and responses on a stream: four bytes of length, then as many bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

/// Reads and writes within limits. What claims to be longer is refused before it is read, and memory is taken only as
/// bytes arrive.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    /// The most bytes of a request.
    pub(super) request: usize,
    /// The most bytes of a response.
    pub(super) response: usize,
}

impl Codec for Limited {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io, self.request).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io, self.response).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        write(io, bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        write(io, bytes).await
    }
}

/// The error of a stream that ended without a single byte is `UnexpectedEof`: the other side refused. One that broke
/// off later is `ConnectionAborted`.
async fn read<T: AsyncRead + Unpin>(io: &mut T, limit: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    let first = io.read(&mut length).await?;
    if first == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let cut = || io::Error::new(io::ErrorKind::ConnectionAborted, "the stream ended within a message");
    io.read_exact(&mut length[first..]).await.map_err(|_| cut())?;
    let length = u32::from_be_bytes(length);
    if length as usize > limit {
        let what = format!("a message of {length} bytes where {limit} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut bytes = Vec::new();
    io.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if bytes.len() < length as usize {
        return Err(cut());
    }
    Ok(bytes)
}

async fn write<T: AsyncWrite + Unpin>(io: &mut T, bytes: Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // One write, so that a small message leaves as one packet.
    io.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn written(bytes: &[u8]) -> Vec<u8> {
        let mut stream = Cursor::new(Vec::new());
        block_on(write(&mut stream, bytes.to_vec())).expect("writes");
        stream.into_inner()
    }

    fn read_back(stream: &[u8], limit: usize) -> Result<Vec<u8>, io::ErrorKind> {
        block_on(read(&mut Cursor::new(stream), limit)).map_err(|error| error.kind())
    }

    #[test]
    fn what_is_written_is_read_up_to_the_limit() {
        for length in [0, 1, 100] {
            assert_eq!(read_back(&written(&vec![7; length]), 100), Ok(vec![7; length]));
        }
        assert_eq!(read_back(&written(&[7; 101]), 100), Err(io::ErrorKind::InvalidData));
        // Refused by its length alone, without the bytes.
        assert_eq!(read_back(&[0xff; 4], 100), Err(io::ErrorKind::InvalidData));
    }

    #[test]
    fn a_refusal_is_told_from_a_break() {
        assert_eq!(read_back(&[], 100), Err(io::ErrorKind::UnexpectedEof));
        let whole = written(&[7; 20]);
        for end in 1..whole.len() {
            assert_eq!(read_back(&whole[..end], 100), Err(io::ErrorKind::ConnectionAborted), "{end}");
        }
    }
}
