//! Every `std::` entry of `clippy.toml`, used once. Never part of a build: `cargo xtask lint` hands this file to clippy for
//! wasm32 and fails unless every entry is refused, so that a misspelt path cannot leave a hole in the fence.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, MutexGuard};
use std::time::Duration;

pub fn types(
    _: std::time::Instant,
    _: std::time::SystemTime,
    _: std::fs::File,
    _: std::fs::OpenOptions,
    _: std::process::Command,
    _: std::net::TcpStream,
    _: std::thread::JoinHandle<()>,
    _: std::sync::Barrier,
) {
}

pub fn files(path: &Path) {
    let _ = std::fs::read(path);
    let _ = std::fs::read_to_string(path);
    let _ = std::fs::read_dir(path);
    let _ = std::fs::metadata(path);
    let _ = std::fs::exists(path);
    let _ = std::fs::canonicalize(path);
    let _ = std::fs::write(path, "");
    let _ = std::fs::copy(path, path);
    let _ = std::fs::rename(path, path);
    let _ = std::fs::create_dir(path);
    let _ = std::fs::create_dir_all(path);
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir_all(path);
    let _ = path.exists();
    let _ = path.is_file();
    let _ = path.is_dir();
    let _ = path.metadata();
    let _ = path.read_dir();
}

pub fn threads() {
    let _ = std::thread::spawn(|| ());
    std::thread::scope(|_| ());
    let _ = std::thread::Builder::new().spawn(|| ());
    std::thread::sleep(Duration::ZERO);
    std::thread::park();
}

pub fn blocking(receiver: &Receiver<()>, condition: &Condvar, guards: [MutexGuard<'_, bool>; 3]) {
    let _ = receiver.recv();
    let _ = receiver.recv_timeout(Duration::ZERO);
    let _ = receiver.iter().next();
    let [first, second, third] = guards;
    let _ = condition.wait(first);
    let _ = condition.wait_while(second, |on| *on);
    let _ = condition.wait_timeout(third, Duration::ZERO);
}
