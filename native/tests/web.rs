//! `temper web` from outside: a real server on a free port, and requests written byte by byte.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PAGE: &str = "<!doctype html><title>Temper</title>\n";
/// An empty but complete WebAssembly module.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// What stands for a compressed file: the server does not look into it.
const PACKED: &[u8] = b"\x1f\x8b packed";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_temper"));
    command.arg("web").stdin(Stdio::null());
    command
}

/// A running server, stopped when the test is over.
struct Server {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        fs::create_dir_all(site.join("parts")).unwrap();
        fs::write(site.join("index.html"), PAGE).unwrap();
        fs::write(site.join("worker.js"), "export {};\n").unwrap();
        fs::write(site.join("parts/chart.css"), "body {}\n").unwrap();
        fs::write(site.join("temper_web_bg.wasm"), MODULE).unwrap();
        fs::write(site.join("worker.js.gz"), PACKED).unwrap();
        fs::write(site.join("demo.safetensors"), vec![7; 3 << 20]).unwrap();
        // More than the buffers between two programs hold. It takes no room on the disk.
        fs::File::create(site.join("large.bin")).unwrap().set_len(64 << 20).unwrap();
        fs::write(folder.path().join("secret.txt"), "secret").unwrap();
        let mut process = program()
            .args(["--no-open", "--port", "0", "--site"])
            .arg(&site)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.strip_prefix("http://127.0.0.1:").and_then(|rest| rest.split('/').next()?.parse().ok());
        let port = port.unwrap_or_else(|| panic!("no address in {line:?}"));
        assert!(line.contains("Ctrl-C"), "{line}");
        Self { process, port, folder }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Makes sure that a visitor gets the page at once.
    fn serves_at_once(&self) {
        let asked = Instant::now();
        assert_eq!(self.get("/").status(), "200");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "a visitor waited for {took:?}");
    }

    /// Everything that the server answers to these bytes.
    fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        let end = received.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head") + 4;
        let body = received.split_off(end);
        Answer { head: String::from_utf8(received).unwrap(), body }
    }

    fn ask(&self, method: &str, target: &str, host: &str) -> Answer {
        self.raw(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n").as_bytes())
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &format!("127.0.0.1:{}", self.port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).expect("a status line")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[test]
fn the_page_and_its_parts_are_served_with_the_types_that_browsers_demand() {
    let server = Server::start();
    let page = server.get("/");
    assert_eq!((page.status(), page.body.as_slice()), ("200", PAGE.as_bytes()));
    let demo = server.get("/demo.safetensors");
    assert_eq!((demo.status(), demo.body.len()), ("200", 3 << 20));
    for (target, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?seed=7#tour", "text/html; charset=utf-8"),
        ("/worker.js", "text/javascript; charset=utf-8"),
        ("/parts/chart.css", "text/css; charset=utf-8"),
        ("/temper_web_bg.wasm", "application/wasm"),
        ("/demo.safetensors", "application/octet-stream"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status(), answer.header("content-type")), ("200", Some(kind)), "{target}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()), "{target}");
    }
    let head = server.ask("HEAD", "/temper_web_bg.wasm", "localhost");
    assert_eq!((head.status(), head.header("content-length")), ("200", Some("8")));
    assert!(head.body.is_empty());
}

#[test]
fn who_takes_compressed_files_gets_them_under_the_type_of_what_is_inside() {
    let server = Server::start();
    let ask = |target: &str, accepted: &str| {
        let host = format!("127.0.0.1:{}", server.port);
        server.raw(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: {accepted}\r\n\r\n").as_bytes())
    };
    let packed = ask("/worker.js", "gzip, deflate, br");
    assert_eq!((packed.status(), packed.body.as_slice()), ("200", PACKED));
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(packed.header("content-length"), Some(PACKED.len().to_string().as_str()));
    for (target, accepted) in [("/worker.js", "identity"), ("/worker.js", "gzip;q=0"), ("/parts/chart.css", "gzip")] {
        let plain = ask(target, accepted);
        assert_eq!((plain.status(), plain.header("content-encoding")), ("200", None), "{target}, {accepted}");
        assert_eq!(plain.header("vary"), Some("Accept-Encoding"), "a cache may not mix the two");
        assert_ne!(plain.body, PACKED);
    }
    // The page was built anew without it.
    fs::remove_file(server.folder.path().join("site/worker.js.gz")).unwrap();
    let plain = ask("/worker.js", "gzip");
    assert_eq!((plain.status(), plain.header("content-encoding")), ("200", None));
}

#[test]
fn every_answer_carries_the_headers_that_keep_the_page_to_itself() {
    let server = Server::start();
    for answer in [server.get("/"), server.get("/nothing"), server.ask("POST", "/", "localhost")] {
        let policy = answer.header("content-security-policy").expect("a policy");
        for part in
            ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval';", "connect-src 'self';", "form-action 'none'"]
        {
            assert!(policy.contains(part), "{part} is not in {policy}");
        }
        assert!(!policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", answer.head);
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[test]
fn no_way_leads_out_of_the_folder() {
    let server = Server::start();
    let secret = server.folder.path().join("secret.txt");
    let whole = secret.display().to_string();
    for target in
        ["/../secret.txt", "/parts/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/parts", &whole]
    {
        let answer = server.get(target);
        assert_eq!(answer.status(), "404", "{target}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{target}");
    }
    // What comes later is not known either, and what has gone is missed without harm.
    let site = server.folder.path().join("site");
    fs::write(site.join("later.txt"), "").unwrap();
    fs::remove_file(site.join("worker.js")).unwrap();
    assert_eq!(server.get("/later.txt").status(), "404");
    assert_eq!(server.get("/worker.js").status(), "404");
    assert_eq!(server.get("/").status(), "200");
}

#[cfg(unix)]
#[test]
fn a_file_or_folder_that_became_a_link_is_not_followed_and_one_that_was_built_anew_is_served() {
    use std::os::unix::fs::symlink;

    let server = Server::start();
    let site = server.folder.path().join("site");
    fs::remove_file(site.join("worker.js")).unwrap();
    symlink("../secret.txt", site.join("worker.js")).unwrap();
    let outside = server.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("chart.css"), "secret").unwrap();
    fs::remove_dir_all(site.join("parts")).unwrap();
    symlink("../outside", site.join("parts")).unwrap();
    for target in ["/worker.js", "/parts/chart.css"] {
        let answer = server.get(target);
        assert_eq!(answer.status(), "404", "{target}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{target}");
    }
    fs::remove_file(site.join("index.html")).unwrap();
    fs::write(site.join("index.html"), "new").unwrap();
    assert_eq!(server.get("/").body, b"new");
}

#[test]
fn what_is_not_a_local_reader_is_refused() {
    let server = Server::start();
    assert_eq!(server.ask("GET", "/", "evil.example").status(), "421");
    assert_eq!(server.ask("GET", "/", &format!("evil.example:{}", server.port)).status(), "421");
    assert_eq!(server.ask("GET", "/", &format!("LocalHost:{}", server.port)).status(), "200");
    assert_eq!(server.raw(b"GET / HTTP/1.1\r\n\r\n").status(), "421");
    let posted = server.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((posted.status(), posted.header("allow")), ("405", Some("GET, HEAD")));
    assert_eq!(server.raw(b"\x16\x03\x01\x02\0 \r\n\r\n").status(), "400");
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(20_000));
    assert_eq!(server.raw(long.as_bytes()).status(), "431");
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_from_being_served() {
    let server = Server::start();
    let mut idle = Vec::new();
    // The last are more than there may be connections.
    for many in [64, 200] {
        idle.resize_with(many, || server.connect());
        server.serves_at_once();
    }
}

#[test]
fn clients_that_read_nothing_do_not_keep_others_from_being_served() {
    let server = Server::start();
    let deaf: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    server.serves_at_once();
    drop(deaf);
}

#[test]
fn a_client_that_asks_a_byte_a_second_is_cut_off() {
    let server = Server::start();
    let mut slow = server.connect();
    slow.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let begin = Instant::now();
    let is_cut_off = |slow: &mut TcpStream| match slow.write_all(b"G").and_then(|()| slow.read(&mut [0])) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    while !is_cut_off(&mut slow) {
        assert!(begin.elapsed() < Duration::from_secs(10), "it is still listened to");
    }
    assert!(begin.elapsed() > Duration::from_secs(4), "it had less time than the five seconds that a client has");
}

#[cfg(target_os = "linux")]
#[test]
fn only_this_machine_can_connect() {
    let server = Server::start();
    assert_eq!(server.get("/").status(), "200");
    // Another address of the loopback network reaches whatever listens on all addresses.
    assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), server.port)).is_err());
}

#[test]
fn a_folder_without_a_page_is_bad_input_and_the_message_says_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let output = program().args(["--no-open", "--port", "0", "--site"]).arg(folder.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("cargo xtask web build") && message.contains("index.html"), "{message}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_port_that_is_taken_is_named_where_it_was_asked_for() {
    let server = Server::start();
    let port = server.port.to_string();
    let site = server.folder.path().join("site");
    let output = program().args(["--no-open", "--port", &port, "--site"]).arg(site).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains(&format!("port {port}")), "{message}");
}

#[cfg(unix)]
#[test]
fn being_asked_to_stop_ends_it_well() {
    let mut server = Server::start();
    let pid = server.process.id().to_string();
    // Not SIGINT, which a background job of a shell script ignores, and so would this server.
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
}
