//! The directory of a run, and what is put in order when the run is cut off.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use nix::sys::signal::{SigSet, Signal};
use tempfile::TempDir;

use super::pages;

static PLACE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Where the sockets are.
pub(crate) struct Home(TempDir);

impl Home {
    /// Makes one, and sees to it that nothing is left when a signal ends this process: the programs that were started end
    /// with it.
    pub(crate) fn new() -> io::Result<Self> {
        let home = tempfile::Builder::new().prefix("vdpa-bench.").tempdir()?;
        if let Ok(mut place) = PLACE.lock() {
            *place = Some(home.path().to_owned());
        }
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        // Threads that begin later have them blocked, too.
        signals.thread_block()?;
        std::thread::spawn(move || {
            if let Ok(signal) = signals.wait() {
                eprintln!("\n{signal}: what was measured until now is written down");
                pages::give_back();
                if let Ok(place) = PLACE.lock()
                    && let Some(place) = &*place
                {
                    let _gone = std::fs::remove_dir_all(place);
                }
                std::process::exit(128 + signal as i32);
            }
        });
        Ok(Self(home))
    }

    /// A path for the socket of this name.
    pub(crate) fn socket(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        // Of an earlier device of that name.
        let _none = std::fs::remove_file(&path);
        path.to_string_lossy().into_owned()
    }
}
