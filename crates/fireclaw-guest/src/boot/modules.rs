//! Kernel modules: only those this VM needs, in the order given.

use std::fs::File;
use std::path::Path;

/// Where the initramfs keeps modules, and the list that orders them.
const DIRECTORY: &str = "/modules";
const ORDER: &str = "/modules/order";

/// Loads the modules of `/modules/order`.
///
/// Each line is `<group> <file>`; only those of the `wanted` groups are loaded:
/// there are modules that other VMs can do without. A kernel with
/// everything built in comes with no list at all.
pub fn load(wanted: &[&str]) -> Result<(), String> {
    let order = match std::fs::read_to_string(ORDER) {
        Ok(order) => order,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("cannot read {ORDER}: {e}")),
    };
    for (group, file) in order.lines().filter_map(|line| line.split_once(' ')) {
        if wanted.contains(&group) {
            load_one(&Path::new(DIRECTORY).join(file))?;
        }
    }
    // The memory goes back to the guest.
    let _ = std::fs::remove_dir_all(DIRECTORY);
    Ok(())
}

fn load_one(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(format!("cannot load {}: {e}", path.display())),
    }
}
