//! `temper web`: the page, for this machine alone.
//!
//! A static server of one folder: GET and HEAD of the files that were there when it started, on the loopback address, with
//! the headers that keep the page to itself. httparse reads the requests; the small HTTP crates limit neither the size of a
//! request nor how long it may take.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use temper_engine::Error;

use crate::cli::{Global, WebArgs};
use crate::files::{read_error, web_sources, words};
use crate::{interrupt, output};

/// Tried in this order where no port is asked for.
const PORTS: std::ops::Range<u16> = 8137..8157;
/// Most connections at once, a thread each. A browser opens six, and some more ahead of time on which it sends nothing for a
/// while. Where one more comes, the oldest is closed, so that nobody waits for those who keep many open.
const CONNECTIONS: usize = 96;
/// Longest request line with headers, in bytes, and the most headers.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// How long a client may take for all of its request, for all of the answer, and to leave.
const ASKING: Duration = Duration::from_secs(5);
const TAKING: Duration = Duration::from_secs(30);
const LEAVING: Duration = Duration::from_millis(200);

/// Sent with every answer. Nothing is loaded from elsewhere, nothing is sent elsewhere, nobody frames the page, and no
/// other page reads it.
const HEADERS: &str = "Content-Security-Policy: default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
                       style-src 'self'; connect-src 'self'; worker-src 'self'; img-src 'self' data: blob:; \
                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
                       X-Content-Type-Options: nosniff\r\n\
                       Referrer-Policy: no-referrer\r\n\
                       Cross-Origin-Opener-Policy: same-origin\r\n\
                       Cross-Origin-Embedder-Policy: require-corp\r\n\
                       Cross-Origin-Resource-Policy: same-origin\r\n\
                       Cache-Control: no-cache\r\n\
                       Connection: close\r\n";

/// Runs the command. `--device` means nothing here: the browser and the visitor choose.
pub fn run(args: WebArgs, _global: &Global) -> Result<()> {
    let folder = find_site(args.site)?;
    let site = Arc::new(Site::open(&folder)?);
    let listener = listen(args.port)?;
    let address = format!("http://127.0.0.1:{}/", listener.local_addr()?.port());
    interrupt::listen();
    thread::Builder::new().name("web".into()).spawn(move || accept(&listener, &site))?;
    output::text(&format!("{address}   (Ctrl-C stops it)\n"))?;
    if !args.no_open {
        open_in_browser(&address);
    }
    while !interrupt::requested() {
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The folder that was named, else `web` beside the program, else the one in the source tree it was built from.
fn find_site(named: Option<PathBuf>) -> Result<PathBuf, Error> {
    let built = web_sources().join("dist");
    let places = match named {
        Some(named) => vec![named],
        None => {
            let program = std::env::current_exe().ok();
            let beside = program.as_deref().and_then(Path::parent).map(|folder| folder.join("web"));
            beside.into_iter().chain([built]).collect()
        }
    };
    let found = places.iter().find(|folder| folder.join("index.html").is_file());
    found.cloned().ok_or_else(|| Error::Missing {
        path: places.last().expect("at least one").display().to_string(),
        problem: "there is no page (index.html) here; build it in the repository with:\n  cargo xtask web build".into(),
    })
}

/// The port that was asked for (0: any), else the first free one.
///
/// # Errors
/// [`Error::Config`] where the one that was asked for cannot be had; the system's where none can.
fn listen(port: Option<u16>) -> Result<TcpListener> {
    if let Some(port) = port {
        return TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            let why = words(&error);
            let problem = format!("--port {port}: {why}; name another, or leave it out for the first that is free");
            Error::Config { problems: vec![problem] }.into()
        });
    }
    let mut last = None;
    for port in PORTS {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    let problem = format!("none of the ports {} to {} is free; name one with --port", PORTS.start, PORTS.end - 1);
    Err(last.expect("there are ports to try")).context(problem)
}

/// Best effort: the address was printed, so it can be opened by hand.
fn open_in_browser(address: &str) {
    let (program, arguments): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else if ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some()) {
        ("xdg-open", &[])
    } else {
        // Without a display it would start a browser in this terminal.
        return;
    };
    let quiet = Stdio::null;
    let _ = Command::new(program).args(arguments).arg(address).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
}

/// The files of the page, as they were when the server started: nothing else can be asked for.
struct Site {
    /// Path in an address, without the first slash.
    files: BTreeMap<String, PathBuf>,
}

impl Site {
    fn open(folder: &Path) -> Result<Self, Error> {
        let root = folder.canonicalize().map_err(|error| read_error(folder, &error))?;
        let mut files = BTreeMap::new();
        list(&root, &root, "", &mut files).map_err(|error| read_error(folder, &error))?;
        Ok(Self { files })
    }

    /// The file for the target of a request, and the same one compressed where it lies beside it.
    fn find(&self, target: &str) -> Option<(&Path, Option<&Path>)> {
        let path = target.split(['?', '#']).next()?.strip_prefix('/')?;
        let path = if path.is_empty() { "index.html" } else { path };
        let compressed = self.files.get(&format!("{path}.gz")).map(PathBuf::as_path);
        self.files.get(path).map(|file| (file.as_path(), compressed))
    }
}

/// Adds the plain files below `folder`. Hidden ones, links out of the site and names that an address would have to encode
/// are left out.
fn list(root: &Path, folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_plain(name)) else { continue };
        let name = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            list(root, &entry.path(), &format!("{name}/"), files)?;
        } else if let Ok(path) = entry.path().canonicalize()
            && path.starts_with(root)
            && path.is_file()
        {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Opens a file as the plain file that it was when the server started. What has since become a link, or lies behind one, could
/// be any file of this machine.
fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    // A link is an error then, and a pipe does not wait for whoever writes to it.
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let is_in_place = path.canonicalize()? == path && file.metadata()?.is_file();
    if is_in_place { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// The connections under way, the oldest first.
type Connections = Mutex<VecDeque<Arc<TcpStream>>>;

/// One of them, until it is dropped.
struct Connection {
    stream: Arc<TcpStream>,
    all: Arc<Connections>,
}

impl Connection {
    fn new(stream: TcpStream, all: &Arc<Connections>) -> Self {
        let stream = Arc::new(stream);
        let mut open = all.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            // Whatever its thread waits for ends with an error.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        open.push_back(Arc::clone(&stream));
        Self { stream, all: Arc::clone(all) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !Arc::ptr_eq(other, &self.stream));
    }
}

/// Gives each connection a thread. What goes wrong with one concerns only whoever made it.
fn accept(listener: &TcpListener, site: &Arc<Site>) {
    let all = Arc::default();
    loop {
        let served = listener.accept().and_then(|(stream, _)| {
            let (connection, site) = (Connection::new(stream, &all), Arc::clone(site));
            let serve = move || drop(serve(&connection.stream, &site));
            thread::Builder::new().name("web connection".into()).spawn(serve)
        });
        if served.is_err() {
            // No file handles or threads left, or the like: it may pass.
            sleep(Duration::from_millis(50));
        }
    }
}

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    /// `compressed` is the same file under gzip, where there is one and it is welcome.
    File {
        path: &'a Path,
        compressed: Option<&'a Path>,
        body: bool,
    },
    Refused {
        status: &'static str,
    },
}

/// Answers what was received so far, or `None` where the request goes on.
fn answer<'a>(received: &[u8], site: &'a Site) -> Option<Answer<'a>> {
    let refused = |status| Some(Answer::Refused { status });
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(received) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refused("431 Request Header Fields Too Large");
        }
        Err(_) => return refused("400 Bad Request"),
    }
    // A name that someone else's server resolved to this machine: that page may not read ours.
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_local(host.value) => {}
        _ => return refused("421 Misdirected Request"),
    }
    let body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return refused("405 Method Not Allowed"),
    };
    match request.path.and_then(|target| site.find(target)) {
        Some((path, compressed)) => {
            let mut accepted = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("accept-encoding"));
            let compressed = compressed.filter(|_| accepted.any(|header| takes_gzip(header.value)));
            Some(Answer::File { path, compressed, body })
        }
        None => refused("404 Not Found"),
    }
}

/// True where an `Accept-Encoding` names gzip and does not give it the weight 0.
fn takes_gzip(accepted: &[u8]) -> bool {
    let Ok(accepted) = std::str::from_utf8(accepted) else { return false };
    accepted.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=").parse::<f32>();
        name.trim().eq_ignore_ascii_case("gzip") && !weight.is_ok_and(|weight| weight <= 0.0)
    })
}

/// True for this machine's own names, with or without a port.
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    (name == "127.0.0.1" || name.eq_ignore_ascii_case("localhost")) && port.chars().all(|c| c.is_ascii_digit())
}

/// A connection up to a moment, however slowly its other end reads or writes.
struct Until<'a> {
    stream: &'a TcpStream,
    moment: Instant,
}

impl<'a> Until<'a> {
    fn new(stream: &'a TcpStream, time: Duration) -> Self {
        Self { stream, moment: Instant::now() + time }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.moment.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(to)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn serve(stream: &TcpStream, site: &Site) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut asking = Until::new(stream, ASKING);
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    let answer = loop {
        match asking.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => received.extend_from_slice(&piece[..n]),
        }
        if let Some(answer) = answer(&received, site) {
            break answer;
        }
    };
    let mut taking = Until::new(stream, TAKING);
    match answer {
        Answer::File { path, compressed, body } => {
            // Meanwhile the page may have been built anew without compressed files.
            let packed = compressed.and_then(|compressed| open_plain(compressed).ok());
            let is_gzip = packed.is_some();
            match packed.map_or_else(|| open_plain(path), Ok) {
                Ok(file) => send_file(&mut taking, &file, kind(path), is_gzip, body)?,
                // It was there when the server started.
                Err(_) => refuse(&mut taking, "404 Not Found")?,
            }
        }
        Answer::Refused { status } => refuse(&mut taking, status)?,
    }
    // Closing with something unread would reset the connection and could take the answer with it.
    stream.shutdown(Shutdown::Write)?;
    let mut leaving = Until::new(stream, LEAVING);
    while leaving.read(&mut piece)? > 0 {}
    Ok(())
}

fn send_file(to: &mut impl Write, file: &File, kind: &str, is_gzip: bool, body: bool) -> io::Result<()> {
    let length = file.metadata()?.len();
    let coding = if is_gzip { "Content-Encoding: gzip\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{coding}Vary: Accept-Encoding\r\n\
         {HEADERS}\r\n"
    );
    to.write_all(head.as_bytes())?;
    if !body {
        return Ok(());
    }
    let mut rest = file.take(length);
    let mut piece = vec![0; 64 << 10];
    loop {
        match rest.read(&mut piece)? {
            0 => return Ok(()),
            n => to.write_all(&piece[..n])?,
        }
    }
}

fn refuse(to: &mut impl Write, status: &str) -> io::Result<()> {
    let length = status.len() + 1;
    // `Allow` is required with 405 and harmless with the others.
    let whole = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Allow: GET, HEAD\r\n{HEADERS}\r\n{status}\n"
    );
    to.write_all(whole.as_bytes())
}

/// What a browser is told a file is; WebAssembly and modules are refused by it under any other name.
fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("json") => "application/json; charset=utf-8",
        Some("svg") => "image/svg+xml; charset=utf-8",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("txt" | "md" | "jsonl") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        let names = ["index.html", "temper_web_bg.wasm", "temper_web_bg.wasm.gz", "parts/chart.js"];
        Site { files: names.map(|name| (name.to_owned(), PathBuf::from("/site").join(name))).into() }
    }

    /// Status of the answer, or the file that it sends; `None` while the request goes on.
    fn asked(request: &str) -> Option<String> {
        Some(match answer(request.as_bytes(), &site())? {
            Answer::File { path, compressed, body } => {
                format!("{}{}", if body { "" } else { "head of " }, compressed.unwrap_or(path).display())
            }
            Answer::Refused { status } => status[..3].to_owned(),
        })
    }

    fn get(target: &str) -> String {
        asked(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).unwrap()
    }

    #[test]
    fn a_port_that_somebody_has_is_refused_in_plain_words() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = listen(Some(port)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--port {port}: ")) && error.contains("name another"), "{error}");
        assert!(!error.contains("os error"), "{error}");
    }

    #[test]
    fn the_files_of_the_page_are_found_and_nothing_else() {
        assert_eq!(get("/"), "/site/index.html");
        assert_eq!(get("/?seed=7&left=sft"), "/site/index.html");
        assert_eq!(get("/parts/chart.js"), "/site/parts/chart.js");
        for target in [
            "/nothing.html",
            "/parts",
            "/parts/",
            "//index.html",
            "/../site/index.html",
            "/parts/../index.html",
            "/%2e%2e/site/index.html",
            "/index.html%00",
            "/..\\site\\index.html",
            "/etc/passwd",
            "index.html",
            "http://localhost/index.html",
            "*",
        ] {
            assert_eq!(get(target), "404", "{target}");
        }
    }

    #[test]
    fn a_compressed_file_is_sent_to_those_who_take_it_and_to_nobody_else() {
        let with = |headers: &str| {
            let head = format!("GET /temper_web_bg.wasm HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
            asked(&head).unwrap()
        };
        for accepted in ["gzip", "br, GZIP;q=0.5", "deflate,gzip , br", "gzip;q=1.0"] {
            assert_eq!(with(&format!("Accept-Encoding: {accepted}\r\n")), "/site/temper_web_bg.wasm.gz", "{accepted}");
        }
        for accepted in ["", "br", "gzip;q=0", "gzip; q=0.0", "x-gzip", "*;q=0"] {
            assert_eq!(with(&format!("Accept-Encoding: {accepted}\r\n")), "/site/temper_web_bg.wasm", "{accepted}");
        }
        assert_eq!(with(""), "/site/temper_web_bg.wasm");
        let plain = "GET /parts/chart.js HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n";
        assert_eq!(asked(plain).as_deref(), Some("/site/parts/chart.js"), "there is no compressed one");
    }

    #[test]
    fn only_reading_is_allowed() {
        let by = |method: &str| asked(&format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n")).unwrap();
        assert_eq!(by("HEAD"), "head of /site/index.html");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get"] {
            assert_eq!(by(method), "405", "{method}");
        }
    }

    #[test]
    fn a_request_must_name_this_machine_once() {
        let with = |headers: &str| asked(&format!("GET / HTTP/1.1\r\n{headers}\r\n")).unwrap();
        for host in ["localhost", "LOCALHOST:8137", "127.0.0.1:1"] {
            assert_eq!(with(&format!("Host: {host}\r\n")), "/site/index.html", "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8137", "127.0.0.2", "", "localhost:x"]
        {
            assert_eq!(with(&format!("Host: {host}\r\n")), "421", "{host}");
        }
        assert_eq!(with(""), "421");
        assert_eq!(with("Host: localhost\r\nHost: evil.example\r\n"), "421");
    }

    #[test]
    fn what_is_unfinished_waits_and_what_is_too_long_or_no_http_is_refused() {
        assert_eq!(asked("GET / HT"), None);
        assert_eq!(asked("GET / HTTP/1.1\r\nHost: localhost\r\n"), None);
        assert_eq!(asked(&format!("GET /{}", "a".repeat(MAX_HEAD))).as_deref(), Some("431"));
        let many: String = (0..=MAX_HEADERS).map(|n| format!("X-{n}: 1\r\n")).collect();
        assert_eq!(asked(&format!("GET / HTTP/1.1\r\n{many}\r\n")).as_deref(), Some("431"));
        assert_eq!(asked("\x16\x03\x01 a TLS greeting\r\n\r\n").as_deref(), Some("400"));
    }

    #[test]
    fn the_listing_has_plain_names_only() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("site");
        fs::create_dir_all(folder.join("parts")).unwrap();
        fs::create_dir_all(folder.join(".git")).unwrap();
        for name in ["index.html", "parts/chart.js", ".git/config", ".hidden", "with space.txt"] {
            fs::write(folder.join(name), "").unwrap();
        }
        fs::write(place.path().join("secret"), "").unwrap();
        #[cfg(unix)]
        for (target, name) in [("../secret", "out"), ("index.html", "again.html")] {
            std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
        }
        let found = Site::open(&folder).unwrap();
        let again: &[&str] = if cfg!(unix) { &["again.html"] } else { &[] };
        let names: Vec<&str> = again.iter().copied().chain(["index.html", "parts/chart.js"]).collect();
        assert_eq!(found.files.keys().collect::<Vec<_>>(), names);
    }
}
