// SPDX-License-Identifier: GPL-2.0

//! All zones, and the files at the root.
//!
//! The list of zones is changed under its mutex from beginning to end of a command, so zones come
//! and go one after the other; taking memory for one makes others wait. It never reaches into a
//! zone that is busy: removal is refused then.

use super::{
    debugfs::{Dir, File, Folder, Target},
    hotplug::{Membership, State},
    refusal::{refusal, LastError, Outcome},
    text::{put, Text},
    zone::Zone,
    zone_files,
};
use crate::command::{CommandError, ZoneCommand, ZoneName, ZoneSpec};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex}, //
};

/// A zone that exists. Its files go first.
struct Entry {
    _dir: Dir<Zone>,
    _membership: Membership,
    zone: Arc<Zone>,
}

/// The zones of the module.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    zones: Mutex<KVec<Entry>>,
    /// Goes after the zones.
    hotplug: State,
    folder: Folder,
    last_error: Arc<LastError>,
}

const FILES: &[File<Registry>] = &[
    File {
        name: c"zones",
        read: Some(show_zones),
        write: Some(change_zones),
    },
    File {
        name: c"last_error",
        read: Some(show_last_error),
        write: None,
    },
];

impl Target for Registry {
    fn last_error(&self) -> &LastError {
        &self.last_error
    }

    fn prefix(&self, _text: &mut Text) {}
}

impl Registry {
    /// Makes the folder of the module, without zones.
    ///
    /// # Errors
    ///
    /// Those of debugfs, and lack of memory.
    pub(crate) fn publish() -> Result<Dir<Registry>> {
        let folder = Folder::new(c"pcp_buddy", None)?;
        let of_registry = folder.clone();
        let last_error = Arc::pin_init(LastError::new(), GFP_KERNEL)?;
        let hotplug = State::new()?;
        let registry = Arc::pin_init(
            pin_init!(Registry {
                zones <- new_mutex!(KVec::new(), "Registry::zones"),
                hotplug,
                folder: of_registry,
                last_error,
            }),
            GFP_KERNEL,
        )?;
        Dir::new(folder, FILES, &registry)
    }

    fn add(&self, name: ZoneName<'_>, spec: &ZoneSpec) -> Outcome {
        let mut zones = self.zones.lock();
        if zones.iter().any(|entry| entry.zone.name() == name.as_str()) {
            return Err(refusal!(EEXIST, "add {name}: there is such a zone"));
        }
        let no_memory = |_| refusal!(ENOMEM, "add {name}: no memory for the list of zones");
        zones.reserve(1, GFP_KERNEL).map_err(no_memory)?;
        let zone = Zone::new(name, spec, self.last_error.clone())?;
        let membership = (self.hotplug.join(&zone))
            .map_err(|errno| refusal!(errno, "add {name}: it would not hear of CPUs that go"))?;
        let dir = Folder::new(zone.c_name(), Some(&self.folder))
            .and_then(|folder| Dir::new(folder, zone_files::FILES, &zone))
            .map_err(|errno| refusal!(errno, "add {name}: its files cannot be made"))?;
        zones
            .push(
                Entry {
                    _dir: dir,
                    _membership: membership,
                    zone,
                },
                GFP_KERNEL,
            )
            .map_err(no_memory)
    }

    fn del(&self, name: ZoneName<'_>) -> Outcome {
        let mut zones = self.zones.lock();
        let position = zones
            .iter()
            .position(|entry| entry.zone.name() == name.as_str());
        let Some(position) = position else {
            return Err(refusal!(ENOENT, "del {name}: there is no such zone"));
        };
        zones[position].zone.retire()?;
        // Gone before the lock is: a zone of that name may be added right after.
        drop(zones.remove(position));
        Ok(())
    }
}

fn show_zones(registry: &Registry, text: &mut Text) -> Result {
    put!(
        text,
        "{:<16} {:<8} {:<6} {:>14} {:>6} {:>11} {:>10} {:>10} {}\n",
        "name",
        "policy",
        "node",
        "size",
        "ranges",
        "block_order",
        "pages",
        "free_pages",
        "busy"
    );
    for entry in registry.zones.lock().iter() {
        show_zone(&entry.zone, text);
    }
    Ok(())
}

fn show_zone(zone: &Zone, text: &mut Text) {
    let spec = zone.spec();
    put!(text, "{:<16} {:<8} ", zone.name(), spec.policy.name());
    match spec.node {
        Some(node) => put!(text, "{node:<6}"),
        None => put!(text, "{:<6}", "any"),
    }
    put!(
        text,
        " {:>14} {:>6} {:>11} {:>10} {:>10} {}\n",
        spec.size,
        spec.ranges,
        spec.block_order,
        spec.pages(),
        zone.free_pages(),
        if zone.is_running() { "yes" } else { "no" }
    );
}

fn show_last_error(registry: &Registry, text: &mut Text) -> Result {
    registry.last_error.render(text);
    Ok(())
}

fn change_zones(registry: &Registry, line: &str) -> Outcome {
    match ZoneCommand::parse(line) {
        Ok(ZoneCommand::Add { name, spec }) => registry.add(name, &spec),
        Ok(ZoneCommand::Del { name }) => registry.del(name),
        Err(err) => Err(refusal!(EINVAL, "{}: {err}", Context(line, &err))),
    }
}

/// What a refused line was about: its command and the name of a zone, or the file.
struct Context<'a>(&'a str, &'a CommandError<'a>);

impl core::fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut words = self.0.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some(verb @ ("add" | "del")), Some(name)) if self.1.key != "name" => {
                write!(f, "{verb} {name}")
            }
            (Some(verb @ ("add" | "del")), _) => f.write_str(verb),
            _ => f.write_str("zones"),
        }
    }
}
