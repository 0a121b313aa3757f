//! `vdpactl serve`: devices in front of other processes' drivers, by vhost-user.

mod board;
mod event;
mod image;
mod meeting;
mod news;
mod passed;
mod socket;
mod traffic;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use vdpa::export::vhost_user::{Made, Options, Server, Serving, Stop};
use vdpa::{Device, Registry};

use self::board::Board;
use self::event::Told;
use self::image::{Image, Name};
use self::meeting::Meeting;
use self::news::{News, Tally, Teller};
use self::passed::Passed;
use crate::failure::{Failure, Verdict};
use crate::options::Serve;
use crate::output::Output;
use crate::signals::Signals;

/// Signals so close together are one: timeout(1) sends its own to the process, and then to the group that it is in.
const ONE_SIGNAL: Duration = Duration::from_millis(300);

/// A device that front ends can come to.
struct Post {
    path: PathBuf,
    spec: String,
    serving: Serving,
    /// The socket, if it was made here.
    made: Option<Made>,
    /// What its size is that of, if it is a disk.
    image: Option<Image>,
    /// What is told of it first.
    first: Told,
    /// What is told of it then.
    tally: Arc<Tally>,
}

/// Serves until a signal, or until no device is left.
pub(crate) fn run(options: &Serve, output: &mut Output) -> Result<Verdict, Failure> {
    // Before anything is opened, which would take the number of what was not passed.
    let passed = Passed::take().map_err(Failure::Input)?;
    // Before any thread begins, which inherits it.
    // Without a terminal that could be closed, SIGHUP means what it means to other servers.
    let hang_up = [Signal::SIGHUP];
    let look = !io::stdin().is_terminal();
    let signals = Signals::block_with(if look { &hang_up } else { &[] })?;
    let (sender, receiver) = news::channel();
    // One registry: devices on the same wire find each other.
    let registry = vdpa::registry();
    let posts = prepare(options, passed, &registry, &sender, output).map_err(Failure::Input)?;
    let stop = Stop::new()?;
    watch(signals, sender.clone())?;

    let mut board = Board::new(output, options.stats);
    let mut made = Vec::new();
    let mut images = Vec::new();
    for (number, post) in posts.into_iter().enumerate() {
        board.add(post.path, post.spec, post.tally, post.first)?;
        made.extend(post.made);
        images.extend(post.image.map(|image| (number, image)));
        serve(number, post.serving, stop.clone(), sender.clone())?;
    }
    let look = || look_again(&registry, &mut images);
    follow(&receiver, &stop, &mut made, look, &mut board)
}

/// Everything that can be wrong is found here, in the order in which the least was done; what was done is undone.
fn prepare(
    options: &Serve,
    mut passed: Passed,
    registry: &Registry,
    sender: &SyncSender<News>,
    output: &mut Output,
) -> Result<Vec<Post>> {
    let admission = socket::admission(options.mode, options.owner.as_deref())?;
    let pairs = meeting::pairs(options)?;
    let meetings: Vec<(&str, Meeting)> = pairs
        .into_iter()
        .map(|(spec, path)| Ok((spec, Meeting::find(path, options.client, &mut passed)?)))
        .collect::<Result<_>>()?;
    let devices: Vec<Device> = meetings
        .iter()
        .map(|(spec, _)| Ok(registry.open(spec)?))
        .collect::<Result<_>>()?;
    for name in passed.left() {
        output.warn(&format!(
            "systemd passed the socket `{name}`, which no --vhost-user names"
        ));
    }
    let every = board::every(options.stats, output);
    let posts = meetings.into_iter().zip(devices).enumerate();
    posts
        .map(|(number, ((spec, meeting), device))| {
            let first = Told::first(&device, options.client);
            let path = meeting.shown();
            let (listen, made) = meeting.listen(&admission)?;
            let name = Name::of(&device);
            let image = Image::of(spec, &device, &name)?;
            let teller = Teller::new(number, sender.clone());
            let tally = teller.tally();
            let how = how(registry, spec, &device, name, every, teller);
            let serving = Server::new(device, how)
                .listen(listen)
                .with_context(|| format!("{spec} cannot be served at {}", path.display()))?;
            Ok(Post {
                path,
                spec: spec.to_owned(),
                serving,
                made,
                image,
                first,
                tally,
            })
        })
        .collect()
}

/// How a device is served.
///
/// * `name`: of the device, and of those that take its place
/// * `every`: between two counts
fn how(
    registry: &Registry,
    spec: &str,
    device: &Device,
    name: Name,
    every: Option<Duration>,
    teller: Teller,
) -> Options {
    let device_type = device.info().device_type;
    // What a front end has broken is no reason to refuse the next one.
    let (registry, spec) = (registry.clone(), spec.to_owned());
    let how = Options::default()
        .reopen(move || {
            let device = registry.open(&spec)?;
            name.set(&device);
            Ok(device)
        })
        .observe(move |notice| {
            if let Some(notice) = Told::of(notice, device_type) {
                teller.tell(notice);
            }
        });
    match every {
        Some(every) => how.stats_every(every),
        None => how,
    }
}

/// A thread that serves one device.
fn serve(number: usize, serving: Serving, stop: Stop, sender: SyncSender<News>) -> io::Result<()> {
    let run = move || {
        let ended = serving.run(&stop).map(|ended| ended.by);
        let _late = sender.send(News::Ended(number, ended));
    };
    let thread = thread::Builder::new().name(format!("serve-{number}"));
    thread.spawn(run).map(drop)
}

/// A thread that waits for signals.
fn watch(signals: Signals, sender: SyncSender<News>) -> io::Result<()> {
    let wait = move || {
        loop {
            let mut asked = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not: it is looked at.
            let _woken = poll(&mut asked, PollTimeout::NONE);
            let news = match signals.next() {
                Ok(None) => continue,
                Ok(Some(Signal::SIGHUP)) => News::Look,
                Ok(Some(_)) | Err(_) => News::Signal,
            };
            if sender.send(news).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(wait).map(drop)
}

/// Has disks take on the sizes of their images. What is to be told of it, by the numbers of devices.
fn look_again(registry: &Registry, images: &mut [(usize, Image)]) -> Vec<(usize, Told)> {
    let looked = images.iter_mut().filter_map(|(number, image)| {
        let told = match image.look(registry) {
            Ok(None) => return None,
            Ok(Some(bytes)) => Told::Resized { bytes },
            Err(error) => Told::NotResized {
                why: format!("{error:#}"),
            },
        };
        Some((*number, told))
    });
    looked.collect()
}

/// Tells what happens until all servers have ended.
fn follow(
    news: &Receiver<News>,
    stop: &Stop,
    made: &mut Vec<Made>,
    mut look: impl FnMut() -> Vec<(usize, Told)>,
    board: &mut Board<'_>,
) -> Result<Verdict, Failure> {
    let mut well = true;
    let mut asked: Option<Instant> = None;
    // Who waits for signals holds the other end: there is always one more.
    while let Some(news) = board.serves().then(|| news.recv().ok()).flatten() {
        match news {
            News::Told(number, told) => board.tell(number, told)?,
            News::Ended(number, ended) => {
                well &= ended.is_ok();
                board.ended(number, ended)?;
            }
            News::Look => {
                for (number, told) in look() {
                    board.tell(number, told)?;
                }
            }
            News::Signal => match asked {
                None => {
                    asked = Some(Instant::now());
                    // Nobody new comes, and then who is there is let go of.
                    made.clear();
                    stop.set();
                }
                Some(first) if first.elapsed() < ONE_SIGNAL => {}
                Some(_) => {
                    board.give_up()?;
                    return Ok(Verdict::Differs);
                }
            },
        }
    }
    Ok(Verdict::well_if(well))
}
