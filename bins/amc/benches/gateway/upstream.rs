//! The upstream: a process of its own that answers every request with 2 KiB, a stream, or as many bytes as asked for.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amc_testkit::Program;
use std::process::Command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Pieces of a stream, and the time between two.
pub(crate) const PIECES: usize = 20;
const BETWEEN: Duration = Duration::from_millis(5);

/// A running upstream.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    _program: Program,
}

impl Running {
    /// Starts one in a process of its own.
    pub(crate) fn start() -> Self {
        let own = std::env::current_exe().expect("a running program has a path");
        let program = Program::start(Command::new(own).arg("upstream"));
        Running { address: program.listening(), _program: program }
    }
}

/// Serves until the process is ended.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{{\"listening\":\"{}\"}}", listener.local_addr().expect("an address"));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                // A client that leaves ends it.
                let _ = connection(stream).await;
            });
        }
    });
}

async fn connection(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let body = format!(
        "{{\"id\":\"c-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"message\":\
         {{\"role\":\"assistant\",\"content\":\"{}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":1,\
         \"completion_tokens\":1,\"total_tokens\":2}}}}",
        "x".repeat(2048 - 230)
    );
    let small =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    loop {
        let Some((path, len)) = read_head(&mut stream).await? else { return Ok(()) };
        let mut left = len;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let most = left.min(buffer.len());
            let read = stream.read(&mut buffer[..most]).await?;
            if read == 0 {
                return Ok(());
            }
            left -= read;
        }
        if path.ends_with("/stream") {
            answer_stream(&mut stream).await?;
        } else {
            stream.write_all(small.as_bytes()).await?;
        }
    }
}

async fn answer_stream(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..PIECES {
        // Each piece says when it was written, so that its reader can tell how long it took.
        let piece = format!("data: {:020}\n\n", now_us());
        stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
        tokio::time::sleep(BETWEEN).await;
    }
    stream.write_all(b"0\r\n\r\n").await
}

/// Microseconds since the epoch.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_micros()).expect("before the year 500,000")
}

/// A head's path and the length of what follows it; none at the end of the connection.
async fn read_head(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, usize)>> {
    let head = crate::load::read_head(stream).await?;
    let Some(head) = head else { return Ok(None) };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some((path, crate::load::content_length(&head).unwrap_or(0))))
}
