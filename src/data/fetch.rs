//! Downloads: official address, what is missing only, checksum, whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::{Download, Set};
use crate::files::{make_folder, write_atomically_with};
use crate::{Error, Result};

/// Environment variable with an address that has the same files as the official one.
pub const BASE_VARIABLE: &str = "DECORR_DATA_URL";

/// How often a cut connection is taken up again, without more having come in between.
const ATTEMPTS: u32 = 3;

/// More than any file of a set's archive has; stops archives that unpack without end.
const MAX_UNPACKED: u64 = 1 << 30;

/// Downloads the files of `set` into `dir` and unpacks archives there. `base` is in place of the
/// official address; `tell` gets a file's name, its bytes so far and in all, where known.
///
/// A download that was cut goes on where it ended, from `FILE.part`. Files that are there and have
/// the right checksum are left as they are.
///
/// Needs the feature `fetch`.
///
/// # Errors
/// [`Error::Data`] naming the address for an unreachable server, an answer other than the file or
/// a wrong checksum, [`Error::Io`], [`Error::Config`] for a set that cannot be downloaded.
pub fn fetch(
    set: &Set,
    dir: &Path,
    base: Option<&str>,
    mut tell: impl FnMut(&str, u64, Option<u64>),
) -> Result<()> {
    if set.downloads.is_empty() {
        let message = format!("{} is no set to download: {}", set.name, set.about);
        return Err(Error::Config(message));
    }
    make_folder(dir)?;
    let base = base.unwrap_or(set.address).trim_end_matches('/');
    for download in set.downloads {
        let path = dir.join(download.file);
        let url = format!("{base}/{}", download.file);
        if !path.is_file() || sha256_of(&path)? != download.sha256 {
            let mut tell = |have, of| tell(download.file, have, of);
            get(&url, &path, download, &mut tell)?;
        }
        if download.file.ends_with(".tar.gz") {
            unpack(&path, dir)?;
        }
    }
    Ok(())
}

fn get(
    url: &str,
    path: &Path,
    download: &Download,
    tell: &mut dyn FnMut(u64, Option<u64>),
) -> Result<()> {
    let part = PathBuf::from(format!("{}.part", path.display()));
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .into();
    let mut failures = 0;
    loop {
        let before = length(&part);
        match go_on(&agent, url, &part, tell) {
            Ok(()) => break,
            // What the server or the disk says will not change by asking again.
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Cut(why)) => {
                let have = length(&part);
                failures = if have > before { 1 } else { failures + 1 };
                if failures >= ATTEMPTS {
                    let message = format!(
                        "the download failed: {why}. The same command goes on from byte {have}"
                    );
                    return Err(Error::data(url, message));
                }
                std::thread::sleep(Duration::from_millis(200 * u64::from(failures)));
            }
        }
    }
    let found = sha256_of(&part)?;
    if found != download.sha256 {
        fs::remove_file(&part).map_err(|e| Error::io(&part, e))?;
        let message = format!(
            "its SHA-256 is {found}, not {}: damaged on the way, or another file. It was removed; try \
             again",
            download.sha256
        );
        return Err(Error::data(url, message));
    }
    let sync = || File::open(&part)?.sync_all();
    sync().map_err(|e| Error::io(&part, e))?;
    fs::rename(&part, path).map_err(|e| Error::io(path, e))
}

/// Why a request did not bring the rest of a file.
enum Trouble {
    /// Worth another try.
    Cut(String),
    Final(Error),
}

/// Asks for what `part` lacks and appends it.
fn go_on(
    agent: &Agent,
    url: &str,
    part: &Path,
    tell: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Trouble> {
    let disk = |e| Trouble::Final(Error::io(part, e));
    let have = length(part);
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.call().map_err(|e| Trouble::Cut(e.to_string()))?;
    let from = match response.status() {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT if begins_at(&response, have) => have,
        // There is nothing after what is there: the checksum tells whether it is the file.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
        status => {
            let message = format!(
                "the server answered {status}. Another address with the same files can be given \
                 in the environment variable {BASE_VARIABLE}"
            );
            return Err(Trouble::Final(Error::data(url, message)));
        }
    };
    let len = response.body().content_length();
    let total = len.map(|len| from + len);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(part)
        .map_err(disk)?;
    file.set_len(from).map_err(disk)?;
    file.seek(SeekFrom::Start(from)).map_err(disk)?;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut at = from;
    loop {
        tell(at, total);
        let read = body.read(&mut buffer);
        match read.map_err(|e| Trouble::Cut(e.to_string()))? {
            0 => break,
            n => {
                file.write_all(&buffer[..n]).map_err(disk)?;
                at += n as u64;
            }
        }
    }
    match total {
        Some(total) if at < total => {
            let why = format!("the connection ended at byte {at} of {total}");
            Err(Trouble::Cut(why))
        }
        _ => Ok(()),
    }
}

fn begins_at(response: &Response<Body>, at: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE);
    let range = range.and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

fn sha256_of(path: &Path) -> Result<String> {
    let unreadable = |e| Error::io(path, e);
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Unpacks a .tar.gz of plain files into `dir`; one that would write elsewhere is refused. Each file is whole or not there.
fn unpack(archive: &Path, dir: &Path) -> Result<()> {
    let damaged = |e: std::io::Error| Error::data(archive, format!("is a damaged archive: {e}"));
    let file = File::open(archive).map_err(|e| Error::io(archive, e))?;
    let unpacked = flate2::read::GzDecoder::new(BufReader::new(file));
    let mut archive_reader = tar::Archive::new(unpacked);
    // Raw: a long name is an entry of its own, of any length, which is refused as no plain file. The sets' have none.
    for entry in archive_reader.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        let stays = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        let kind = entry.header().entry_type();
        let fits = kind.is_dir() || kind.is_file() && entry.size() <= MAX_UNPACKED;
        if !name.components().all(stays) || !fits {
            let message = format!(
                "holds {}, which is no plain file within its folder: refused",
                name.display()
            );
            return Err(Error::data(archive, message));
        }
        make_folders(
            archive,
            dir,
            if kind.is_dir() {
                &name
            } else {
                name.parent().unwrap_or(&name)
            },
        )?;
        if kind.is_file() {
            let wanted = entry.size();
            let target = dir.join(&name);
            let written =
                write_atomically_with(&target, |file| match std::io::copy(&mut entry, file)? {
                    copied if copied < wanted => Err(ErrorKind::UnexpectedEof.into()),
                    _ => Ok(()),
                });
            written.map_err(|e| match e {
                Error::Io { source, .. } if source.kind() == ErrorKind::UnexpectedEof => {
                    let message = format!("is a damaged archive: {} is cut short", name.display());
                    Error::data(archive, message)
                }
                other => other,
            })?;
        }
    }
    Ok(())
}

/// Makes the folders `below` in `dir`. One that is a link would lead elsewhere.
fn make_folders(archive: &Path, dir: &Path, below: &Path) -> Result<()> {
    let mut target = dir.to_path_buf();
    for part in below.components() {
        target.push(part);
        if target.is_symlink() {
            let message = format!(
                "would be unpacked through the link {}: refused",
                target.display()
            );
            return Err(Error::data(archive, message));
        }
        if !target.is_dir() {
            fs::create_dir(&target).map_err(|e| Error::io(&target, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::net::TcpListener;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::data::{FOLDER, find_set};

    /// Serves `file` under any name for as long as the test runs, ranges too. The first `cuts`
    /// answers end after a third of what they promise. Returns the address.
    fn serve(status: &'static str, file: Vec<u8>, cuts: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut from = None;
                for line in BufReader::new(&stream).lines() {
                    let line = line.unwrap().to_ascii_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        from = range.trim_end_matches('-').parse().ok();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let (status, range, body) = match from {
                    Some(from) if from >= file.len() => {
                        ("416 Range Not Satisfiable", String::new(), &file[..0])
                    }
                    Some(from) => {
                        let (last, len) = (file.len() - 1, file.len());
                        let range = format!("Content-Range: bytes {from}-{last}/{len}\r\n");
                        ("206 Partial Content", range, &file[from..])
                    }
                    None => (status, String::new(), &file[..]),
                };
                let len = body.len();
                let sent = if i < cuts { &body[..len / 3] } else { body };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {len}\r\n{range}Connection: close\r\n\r\n"
                );
                // The client may be gone already.
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(sent);
            }
        });
        address
    }

    fn set(file: &'static str, bytes: &[u8]) -> Set {
        let hex = Sha256::digest(bytes)
            .into_iter()
            .map(|b| format!("{b:02x}"));
        let download = Download {
            file,
            sha256: hex.collect::<String>().leak(),
        };
        Set {
            name: "test",
            address: "http://127.0.0.1:1/",
            downloads: vec![download].leak(),
            ..*find_set(FOLDER).unwrap()
        }
    }

    fn content() -> Vec<u8> {
        (0..300_000_u32).map(|i| ((i * i) >> 7) as u8).collect()
    }

    #[test]
    fn a_cut_download_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let set = set("file.bin", &content());
        let address = serve("200 OK", content(), 2);
        let mut seen = Vec::new();
        fetch(&set, dir.path(), Some(&address), |file, have, total| {
            assert_eq!((file, total), ("file.bin", Some(300_000)));
            seen.push(have);
        })
        .unwrap();
        assert_eq!(fs::read(dir.path().join("file.bin")).unwrap(), content());
        assert!(!dir.path().join("file.bin.part").exists());
        assert!(seen.is_sorted() && seen.contains(&100_000), "{seen:?}");
        // A whole file is not asked for again: nothing listens at this address.
        fetch(&set, dir.path(), None, |_, _, _| panic!("downloaded again")).unwrap();
    }

    #[test]
    fn what_an_earlier_command_left_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("file.bin.part");
        let set = set("file.bin", &content());
        for kept in [1000, 300_000] {
            fs::write(&part, &content()[..kept]).unwrap();
            let address = serve("200 OK", content(), 0);
            let mut first = None;
            fetch(&set, dir.path(), Some(&address), |_, have, _| {
                first.get_or_insert(have);
            })
            .unwrap();
            assert_eq!(first.unwrap_or(300_000), kept as u64);
            assert_eq!(fs::read(dir.path().join("file.bin")).unwrap(), content());
            fs::remove_file(dir.path().join("file.bin")).unwrap();
        }
    }

    #[test]
    fn a_damaged_file_that_is_there_is_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut wrong = content();
        wrong[7] ^= 1;
        fs::write(dir.path().join("file.bin"), &wrong).unwrap();
        let address = serve("200 OK", content(), 0);
        let set = set("file.bin", &content());
        fetch(&set, dir.path(), Some(&address), |_, _, _| ()).unwrap();
        assert_eq!(fs::read(dir.path().join("file.bin")).unwrap(), content());
    }

    #[test]
    fn a_wrong_checksum_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let set = set("file.bin", b"something else");
        let address = serve("200 OK", content(), 0);
        let error = fetch(&set, dir.path(), Some(&address), |_, _, _| ()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("file.bin: its SHA-256 is"), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn answers_other_than_the_file_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let set = set("file.bin", &content());
        let address = serve("404 Not Found", b"no such file".to_vec(), 0);
        let error = fetch(&set, dir.path(), Some(&address), |_, _, _| ()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("404 Not Found") && text.contains(BASE_VARIABLE),
            "{text}"
        );
        // Nothing listens on port 1.
        let error = fetch(&set, dir.path(), None, |_, _, _| ()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("127.0.0.1:1/file.bin: the download failed"),
            "{text}"
        );
    }

    fn archive(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        // Written directly, as the crate refuses to make such names.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let mut packed = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        packed.append(&header, bytes).unwrap();
        packed.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn archives_are_unpacked_within_their_folder_only() {
        let dir = tempfile::tempdir().unwrap();
        let fetch_into = |name: &str, bytes: Vec<u8>| {
            let set = set("a.tar.gz", &bytes);
            let address = serve("200 OK", bytes, 0);
            fetch(&set, &dir.path().join(name), Some(&address), |_, _, _| ())
        };
        fetch_into("good", archive("batches/one.bin", b"12345")).unwrap();
        let unpacked = dir.path().join("good/batches/one.bin");
        assert_eq!(fs::read(unpacked).unwrap(), b"12345");
        for name in ["../evil", "/tmp/evil-of-decorr", "a/../../evil"] {
            let text = fetch_into("bad", archive(name, b"1"))
                .unwrap_err()
                .to_string();
            assert!(
                text.contains("a.tar.gz") && text.contains("refused"),
                "{text}"
            );
        }
        assert!(!dir.path().join("evil").exists());
        let cut = archive("batches/two.bin", &content());
        let text = fetch_into("cut", cut[..cut.len() / 2].to_vec()).unwrap_err();
        assert!(text.to_string().contains("damaged archive"), "{text}");
    }

    /// Names longer than a header's are entries of their own, of any length; the sets' archives have none.
    #[test]
    fn long_names_cut_entries_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fetch_into = |name: &str, bytes: Vec<u8>| {
            let set = set("a.tar.gz", &bytes);
            let address = serve("200 OK", bytes, 0);
            let out = dir.path().join(name);
            fetch(&set, &out, Some(&address), |_, _, _| ()).map_err(|e| e.to_string())
        };
        let packed = |bytes: &[u8]| {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(bytes).unwrap();
            gz.finish().unwrap()
        };
        let header = |kind: tar::EntryType, name: &str, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        // It claims 800 MB of name and has none.
        let long = header(tar::EntryType::GNULongName, "././@LongLink", 800 << 20);
        let text = fetch_into("long", packed(&long)).unwrap_err();
        assert!(text.contains("refused") && text.len() < 500, "{text}");
        let cut = [
            header(tar::EntryType::Regular, "d/big", 1 << 20),
            vec![7; 1024],
        ]
        .concat();
        let text = fetch_into("cut", packed(&cut)).unwrap_err();
        assert!(text.contains("damaged archive"), "{text}");
        assert!(!dir.path().join("cut/d/big").exists());
        assert_eq!(fs::read_dir(dir.path().join("cut/d")).unwrap().count(), 0);
        #[cfg(unix)]
        {
            fs::create_dir_all(dir.path().join("link")).unwrap();
            fs::create_dir_all(dir.path().join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("link/d"))
                .unwrap();
            let whole = [
                header(tar::EntryType::Regular, "d/x", 3),
                b"abc".to_vec(),
                vec![0; 509 + 1024],
            ]
            .concat();
            let text = fetch_into("link", packed(&whole)).unwrap_err();
            assert!(text.contains("link") && text.contains("refused"), "{text}");
            assert!(!dir.path().join("elsewhere/x").exists());
        }
    }

    /// Names that begin with `./`, as `tar c .` writes them, are within the folder.
    #[test]
    fn archives_of_a_folder_are_unpacked_with_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, name, text) in [
            (tar::EntryType::Directory, "./", ""),
            (tar::EntryType::Directory, "./below/", ""),
            (tar::EntryType::Regular, "./below/a.bin", "a"),
            (tar::EntryType::Regular, "further/below/b.bin", "bb"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o755);
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        let path = dir.path().join("set.tar.gz");
        fs::write(&path, archive.into_inner().unwrap().finish().unwrap()).unwrap();
        unpack(&path, dir.path()).unwrap();
        for (name, wanted) in [("below/a.bin", "a"), ("further/below/b.bin", "bb")] {
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), wanted);
        }
    }
}
