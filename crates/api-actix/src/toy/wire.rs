//! What only shows on a real socket.

use actix_web::HttpServer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{api, app};

async fn exchange(request: Vec<u8>) -> String {
    let api = api();
    let server = HttpServer::new(move || app(&api)).workers(1).bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    let running = server.run();
    let handle = running.handle();
    actix_web::rt::spawn(running);
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let writing = actix_web::rt::spawn(async move { writer.write_all(&request).await.map(|()| writer) });
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer).await.unwrap();
    drop(writing.await);
    handle.stop(false).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[actix_web::test]
async fn head_is_like_get_without_a_body() {
    let answer = exchange(b"HEAD /servers/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("etag: \"3\"") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[actix_web::test]
async fn client_with_too_large_a_body_can_read_the_answer() {
    let head = |framing: &str| {
        format!("POST /servers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n")
    };
    let mut announced = head("Content-Length: 3000000").into_bytes();
    announced.extend(vec![b' '; 3_000_000]);
    let answer = exchange(announced).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("\"too_large\""), "{answer}");
    let mut chunked = head("Transfer-Encoding: chunked").into_bytes();
    for _ in 0..40 {
        chunked.extend(b"10000\r\n");
        chunked.extend(vec![b' '; 0x10000]);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = exchange(chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("\"too_large\""), "{answer}");
}
