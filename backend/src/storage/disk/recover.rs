//! Opening a data directory: what is there is verified first, and only then changed.

use super::checkpoint::CheckpointReader;
use super::files::{Files, Lock};
use super::format::{LOCK, META, NODE, Name, checkpoint_name, segment_name};
use super::handle::Disk;
use super::identity::{MetaBody, read_meta, read_node, write_node};
use super::journal::{DiskJournal, Drive, Start};
use super::log::{Closed, LogWriter, Resume, seal};
use super::segment::{End, Recovered, Runs, SegmentHead, decode_segment_head, is_unused, replay};
use super::{OpenError, Opened, Options, Restore};
use crate::chain::Meta;
use crate::storage::StorageError;
use bytes::Bytes;
use kvservice_shared::chain::Run;
use kvservice_shared::ids::{NodeId, Seq};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Opens a data directory; makes it where there is none. The newest checkpoint goes into `restore`; the log that
/// is given back goes on after its base, or before it.
///
/// # Errors
/// Where the directory is in use, a file call failed, or something does not verify that no crash explains. What
/// `restore` took in is worth nothing then. Nothing that counts was changed.
pub fn open(
    dir: &Path,
    options: Options,
    files: Arc<dyn Files>,
    restore: &mut dyn Restore,
) -> Result<Opened, OpenError> {
    open_driven(dir, options, files, restore, Drive::Threads)
}

/// As [`open`], for simulators: the journal works when [`DiskJournal::work_log`] and
/// [`DiskJournal::work_saver`] say so.
///
/// # Errors
/// As [`open`].
#[doc(hidden)]
pub fn open_by_hand(
    dir: &Path,
    options: Options,
    files: Arc<dyn Files>,
    restore: &mut dyn Restore,
) -> Result<Opened, OpenError> {
    open_driven(dir, options, files, restore, Drive::ByHand)
}

fn open_driven(
    dir: &Path,
    options: Options,
    files: Arc<dyn Files>,
    restore: &mut dyn Restore,
    drive: Drive,
) -> Result<Opened, OpenError> {
    let io = |what: &str, source| StorageError::Io {
        what: format!("cannot {what} {}", dir.display()),
        source,
    };
    files.create_dir(dir).map_err(|e| io("create", e))?;
    let held = match files.lock(&dir.join(LOCK)).map_err(|e| io("lock", e))? {
        Lock::Held(held) => held,
        Lock::Taken(by) => {
            return Err(OpenError::Locked {
                dir: dir.display().to_string(),
                by,
            });
        }
    };
    let disk = Disk::new(files, dir);
    let found = Found::look(&disk)?;
    let (node, mut body) = found.identity(&disk)?;
    let mut notes = Vec::new();

    restore.clear();
    let checkpoint = found.checkpoint(&disk, node, &body)?;
    let mut log = found.log(&disk, node, &body)?;
    let end = log.recovered.end();
    let reached = checkpoint
        .as_ref()
        .is_some_and(|checkpoint| end.last >= checkpoint.whole_at());
    let mut point = None;
    // A node that learns has no state of its own until a whole checkpoint and the log meet.
    let void = body.learning && !reached;
    if void {
        notes.push("the node was learning and is not done: it starts empty".to_owned());
    } else {
        check_start(&disk, &body, checkpoint.as_ref(), &log)?;
        if let Some(checkpoint) = checkpoint {
            point = Some((checkpoint.base(), checkpoint.whole_at()));
            checkpoint.restore(restore)?;
        }
    }

    // All is verified. From here on the directory is changed. First, names that may be there only for this boot of
    // the machine stay: a new checkpoint's does not go with the removal of the old one.
    disk.sync_dir()?;
    for name in found.useless(&body) {
        disk.remove(&name)?;
    }
    log.finish(&disk, &mut notes)?;
    body.learning &= !reached;
    body.ordinal = log.next_ordinal;
    let meta = body.meta.clone();
    let generation = body.generation;
    let resume = Resume {
        node,
        body,
        runs: Runs::of(&log.recovered),
        closed: log.closed,
        committed: log.recovered.committed,
    };
    let mut writer = LogWriter::new(disk.clone(), options.segment_bytes, resume)?;
    if void {
        let mut names = writer.reset(Run::default())?;
        names.extend(found.checkpoints_of(generation));
        for name in names {
            disk.remove(&name)?;
        }
        log.recovered = Recovered::default();
    }
    let start = Start {
        node,
        checkpoint: point.map(|(base, _)| base.last),
        checkpoint_number: found.newest_checkpoint(writer.generation()).unwrap_or(0),
        held,
    };
    Ok(Opened {
        node,
        meta,
        checkpoint: point,
        log_base: log.recovered.base,
        committed: log.recovered.committed,
        log: log.recovered.batches,
        journal: DiskJournal::start(&disk, options, drive, writer, start)?,
        notes,
    })
}

/// Whether checkpoint and log are what this generation must have.
fn check_start(
    disk: &Disk,
    body: &MetaBody,
    checkpoint: Option<&CheckpointReader>,
    log: &LogFiles,
) -> Result<(), OpenError> {
    let (start, end) = (log.recovered.base, log.recovered.end());
    let needed = checkpoint.map_or(body.base, CheckpointReader::base);
    if start.last > needed.last {
        let problem = format!(
            "the log begins after entry {}, and there is no checkpoint that reaches it",
            start.last
        );
        let name = segment_name(body.generation, log.first_ordinal.saturating_sub(1));
        return Err(OpenError::missing(&disk.path(&name), &problem));
    }
    match checkpoint {
        Some(checkpoint) if end.last < checkpoint.whole_at() => {
            let problem = format!(
                "the log ends with entry {}, and the checkpoint needs it up to {}",
                end.last,
                checkpoint.whole_at()
            );
            let name = segment_name(body.generation, log.next_ordinal);
            Err(OpenError::missing(&disk.path(&name), &problem))
        }
        _ => Ok(()),
    }
}

/// The names in a data directory.
struct Found(Vec<(String, Name)>);

impl Found {
    /// Lists the directory. What is not whole goes at once: it is worth nothing.
    fn look(disk: &Disk) -> Result<Found, OpenError> {
        let mut found = Vec::new();
        for name in disk.list()? {
            match Name::parse(&name) {
                Some(Name::Part) => disk.remove(&name)?,
                Some(kind) => found.push((name, kind)),
                None => {}
            }
        }
        Ok(Found(found))
    }

    fn has(&self, kind: Name) -> bool {
        self.0.iter().any(|(_, known)| *known == kind)
    }

    /// The numbers of this generation's segments, in order.
    fn ordinals(&self, of: u64) -> Vec<u64> {
        let mut ordinals: Vec<u64> = self
            .0
            .iter()
            .filter_map(|(_, kind)| match *kind {
                Name::Segment {
                    generation,
                    ordinal,
                } if generation == of => Some(ordinal),
                _ => None,
            })
            .collect();
        ordinals.sort_unstable();
        ordinals
    }

    fn newest_checkpoint(&self, of: u64) -> Option<u64> {
        self.0
            .iter()
            .filter_map(|(_, kind)| match *kind {
                Name::Checkpoint { generation, number } if generation == of => Some(number),
                _ => None,
            })
            .max()
    }

    fn checkpoints_of(&self, of: u64) -> impl Iterator<Item = String> {
        self.newest_checkpoint(of)
            .into_iter()
            .map(move |number| checkpoint_name(of, number))
    }

    /// Who the node is, and what it remembers. Made where the directory is new.
    fn identity(&self, disk: &Disk) -> Result<(NodeId, MetaBody), OpenError> {
        let data = self
            .0
            .iter()
            .find(|(_, kind)| !matches!(kind, Name::Node | Name::Part));
        let node = match (self.has(Name::Node), data) {
            (true, _) => read_node(disk)?,
            (false, Some((name, _))) => {
                let problem = format!("it is made before {name}");
                return Err(OpenError::missing(&disk.path(NODE), &problem));
            }
            (false, None) => {
                let node = NodeId(Uuid::new_v4());
                write_node(disk, node)?;
                node
            }
        };
        if self.has(Name::Meta) {
            let body = read_meta(disk)?;
            if body.node != node {
                let problem = format!("it belongs to node {}", body.node);
                return Err(OpenError::corrupt(&disk.path(META), 0, &problem));
            }
            self.check_newer(disk, body.generation)?;
            return Ok((node, body));
        }
        self.check_newer(disk, 0)?;
        let body = MetaBody {
            node,
            generation: 1,
            ordinal: 1,
            base: Run::default(),
            learning: false,
            meta: Meta::default(),
        };
        // The first segment comes before the meta data that name its generation, as with every reset.
        let resume = Resume {
            node,
            body: body.clone(),
            runs: Runs::after(body.base),
            closed: VecDeque::new(),
            committed: Seq::ZERO,
        };
        LogWriter::new(disk.clone(), 0, resume)?;
        Ok((node, body))
    }

    /// A generation that `meta` does not know yet has one segment, and that is not used.
    fn check_newer(&self, disk: &Disk, current: u64) -> Result<(), OpenError> {
        for (name, kind) in &self.0 {
            let newer = match *kind {
                Name::Segment {
                    generation,
                    ordinal: 1,
                } if generation.checked_sub(1) == Some(current) => {
                    let path = disk.path(name);
                    !is_unused(&disk.read(name)?, &path)?
                }
                Name::Segment { generation, .. } | Name::Checkpoint { generation, .. } => {
                    generation > current
                }
                Name::Node | Name::Meta | Name::Part => false,
            };
            if newer {
                let problem = format!("{name} is newer than what is there");
                return Err(OpenError::missing(&disk.path(META), &problem));
            }
        }
        Ok(())
    }

    /// What nobody will read again.
    fn useless(&self, body: &MetaBody) -> Vec<String> {
        let newest = self.newest_checkpoint(body.generation);
        self.0
            .iter()
            .filter(|(_, kind)| match *kind {
                Name::Node | Name::Meta | Name::Part => false,
                Name::Segment { generation, .. } => generation != body.generation,
                Name::Checkpoint { generation, number } => {
                    generation != body.generation || Some(number) != newest
                }
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn checkpoint(
        &self,
        disk: &Disk,
        node: NodeId,
        body: &MetaBody,
    ) -> Result<Option<CheckpointReader>, OpenError> {
        self.newest_checkpoint(body.generation)
            .map(|number| CheckpointReader::open(disk, node, body.generation, number))
            .transpose()
    }

    fn log(&self, disk: &Disk, node: NodeId, body: &MetaBody) -> Result<LogFiles, OpenError> {
        // A directory that was made just now was listed before.
        let mut ordinals = self.ordinals(body.generation);
        if ordinals.is_empty() && !self.has(Name::Meta) {
            ordinals.push(1);
        }
        let ends = ordinals.first().zip(ordinals.last());
        let Some((&first, &last)) = ends.filter(|(_, last)| **last >= body.ordinal) else {
            let path = disk.path(&segment_name(body.generation, body.ordinal));
            return Err(OpenError::missing(&path, "the log goes on there"));
        };
        let mut log = LogFiles {
            recovered: Recovered::default(),
            closed: VecDeque::new(),
            first_ordinal: first,
            next_ordinal: last + 1,
            open: None,
        };
        for (ordinal, expected) in ordinals.into_iter().zip(first..) {
            let name = segment_name(body.generation, ordinal);
            if ordinal != expected {
                let path = disk.path(&segment_name(body.generation, expected));
                return Err(OpenError::missing(&path, &format!("{name} follows it")));
            }
            let path = disk.path(&name);
            let bytes = disk.read(&name)?;
            if ordinal == first {
                log.recovered.base = decode_segment_head(&bytes, &path)?.0.before;
            }
            let head = SegmentHead {
                node,
                generation: body.generation,
                ordinal,
                before: log.recovered.end(),
                salt: 0,
            };
            let bytes = Bytes::from(bytes);
            let end = replay(&bytes, &path, ordinal == last, &head, &mut log.recovered)?;
            let is_last = ordinal == last;
            if is_last && end.empty {
                // Its place is taken by the new one.
                log.next_ordinal = ordinal;
            } else {
                log.closed.push_back(Closed {
                    name: name.clone(),
                    last: end.last,
                });
            }
            if is_last {
                log.open = Some(Last { name, end, bytes });
            }
        }
        Ok(log)
    }
}

/// The log as it was found.
struct LogFiles {
    recovered: Recovered,
    closed: VecDeque<Closed>,
    first_ordinal: u64,
    next_ordinal: u64,
    /// The last segment's end and content: it may have to be finished.
    open: Option<Last>,
}

/// The last segment.
struct Last {
    name: String,
    end: End,
    bytes: Bytes,
}

impl LogFiles {
    /// Cuts what is torn, makes durable what was read, and seals the last segment.
    fn finish(&mut self, disk: &Disk, notes: &mut Vec<String>) -> Result<(), OpenError> {
        let Some(Last { name, end, bytes }) = self.open.take() else {
            return Ok(());
        };
        if end.torn {
            notes.push(format!(
                "{}: a write was torn at byte {}, as a crash leaves it; it was cut off",
                disk.path(&name).display(),
                end.offset
            ));
        }
        // An empty one is replaced by the segment that is begun now.
        if end.empty {
            return Ok(());
        }
        let mut file = disk.open(&name)?;
        let offset = end.offset as u64;
        if end.torn {
            file.set_len(offset)?;
        }
        // A sync that failed in the process before this one may have left pages that only look durable: what
        // no group vouches for is written again.
        let doubtful = end.synced.min(end.offset);
        file.write_at(&bytes[doubtful..end.offset], doubtful as u64)?;
        file.sync()?;
        if !end.sealed {
            let run = self.recovered.end();
            seal(&mut file, end.salt, offset, run, self.recovered.committed)?;
        }
        Ok(())
    }
}
