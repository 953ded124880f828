//! The disk is full: a small file system of its own, filled to the last byte and emptied again.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rig::{Plan, SOON};
use crate::harness::{eventually, precondition, temp_dir};
use tempfile::TempDir;

/// A file system in memory, mounted until the drop.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounting takes root, and a container that allows it.
    fn mount(folder: &Path, size: &str) -> Result<Self, String> {
        let options = format!("size={size},mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "eclusa-disk"])
            .arg(folder)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self {
                path: folder.to_owned(),
            }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Nothing more fits.
    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("own disk");
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("filled before");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the last process on it may be dying still.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn small_disk(size: &str) -> Option<(TempDir, Disk)> {
    let folder = temp_dir("disk-");
    let disk = precondition("a small disk", Disk::mount(folder.path(), size))?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("own folder");
    Some((folder, disk))
}

#[tokio::test]
async fn sqlite_on_a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let Some((folder, disk)) = small_disk("64m") else {
        return;
    };
    let rig = Plan::embedded().on_disk(folder).start().await;
    disk.fill();
    let line = rig.app.wait_for_log(SOON, "batch not written").await;
    assert!(line.contains("operator"), "{line}");
    disk.empty();
    rig.flows().await;
    rig.settle().await.assert_all_rows();
}

#[tokio::test]
async fn postgres_on_a_full_disk_is_waited_for() {
    let Some((folder, disk)) = small_disk("192m") else {
        return;
    };
    let mut rig = Plan::full().on_disk(folder).start().await;
    disk.fill();
    rig.app.wait_for_log(SOON, "batch not written").await;
    rig.load.taken_more(SOON, 1_500).await;
    disk.empty();
    // Without room for its log PostgreSQL gives up, and somebody has to start it again.
    if rig.postgres().has_failed() {
        rig.postgres().start_again().await;
    }
    eventually(SOON, "it takes connections", async || {
        rig.app.is_ready().await.then_some(())
    })
    .await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}
