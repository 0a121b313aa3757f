//! `vdpactl serve` of a disk whose image gets another size: SIGHUP has it looked at.
#![cfg(feature = "cli")]

mod serving;
mod vdpactl;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serving::{Disk, Served};
use tempfile::TempDir;

/// A server of an image of so many sectors, and where it is.
fn served(home: &TempDir, sectors: u64) -> (Served, PathBuf, PathBuf) {
    let [image, socket] = ["disk.img", "vdpa.sock"].map(|name| home.path().join(name));
    resize(&image, sectors);
    let spec = format!("sim:blk,file={}", image.display());
    let args = [&spec, "--vhost-user", socket.to_str().unwrap()];
    let served = Served::start(args);
    served.expect("listening");
    (served, image, socket)
}

fn resize(image: &Path, sectors: u64) {
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(image);
    file.unwrap().set_len(sectors * 512).unwrap();
}

#[test]
fn a_disk_takes_on_the_size_of_its_image_while_it_is_driven() {
    let home = tempfile::tempdir().unwrap();
    let (served, image, socket) = served(&home, 2048);
    let mut disk = Disk::attach(&socket, false);
    served.expect("connected");
    served.expect("running");
    assert_eq!(disk.capacity(), 2048);
    for sectors in [4096_u64, 1024] {
        resize(&image, sectors);
        served.signal(Signal::SIGHUP);
        let resized = served.expect("resized");
        assert_eq!(vdpactl::keys(&resized), ["bytes", "event", "path", "spec"]);
        assert_eq!(resized["bytes"], sectors * 512);
        assert_eq!(disk.capacity(), sectors);
        // And its last one is there.
        disk.write(sectors - 1, &[7; 512]);
        assert_eq!(disk.read(sectors - 1), [7; 512]);
    }
    drop(disk);
    served.expect("disconnected");
    served.stop(1);
}

#[test]
fn a_size_that_cannot_be_had_is_told_and_the_disk_keeps_its_own() {
    let home = tempfile::tempdir().unwrap();
    let (served, image, socket) = served(&home, 2048);
    let mut disk = Disk::attach(&socket, true);
    served.expect("connected");
    served.expect("running");
    // What is refused at the start is refused here, and the disk goes on.
    let not_resized = |to: u64, words: &str| {
        let file = File::options().write(true).open(&image).unwrap();
        file.set_len(to).unwrap();
        served.signal(Signal::SIGHUP);
        let not = served.expect("not_resized");
        let why = not["why"].as_str().unwrap();
        assert!(why.contains(image.to_str().unwrap()), "{why}");
        assert!(why.contains(words), "{words} is not in {why}");
        assert_eq!(disk.capacity(), 2048);
    };
    not_resized(100, "has 100 bytes, which is no multiple of 512");
    not_resized(0, "is empty");
    resize(&image, 2048);
    disk.write(2047, &[9; 512]);
    // The file is still open, and has no name any more.
    fs::remove_file(&image).unwrap();
    served.signal(Signal::SIGHUP);
    let not = served.expect("not_resized");
    assert_eq!(vdpactl::keys(&not), ["event", "path", "spec", "why"]);
    let why = not["why"].as_str().unwrap();
    for words in [image.to_str().unwrap(), "no size", "No such file"] {
        assert!(why.contains(words), "{words} is not in {why}");
    }
    assert!(!why.contains('\n'));
    assert_eq!(disk.capacity(), 2048);
    assert_eq!(disk.read(2047), [9; 512]);
    drop(disk);
    served.expect("disconnected");
    served.stop(1);
}
