//! What a trained network says of pictures.

use std::path::Path;

use image::RgbImage;

use super::{MOST, Prediction, Trained};
use crate::decode::{self, Room};
use crate::picture::Picture;
use crate::{Error, Result};

/// Bytes of a pixel that is resized.
const OF_RGB: u64 = 3;

/// With the feature `pictures`.
impl Trained {
    /// `picture` with the channels that the network takes, no side longer than `side`.
    ///
    /// # Errors
    /// [`Error::Config`] for a side of 0, [`Error::Checkpoint`] if the file does not say what images the network takes.
    pub fn prepare(&self, picture: &Picture, side: usize) -> Result<Picture> {
        self.check_channels()?;
        let [channels, ..] = self.transform.shape;
        Ok(picture.scaled_down(side)?.with_channels(channels))
    }

    /// What `picture` becomes before it goes into the network: its values, [C, H, W]. It is brought to the network's size as
    /// the test images of the training's data set are, to 8 bits a channel, grey or colour as the network takes it, and
    /// normalised. Of a picture of another shape the middle is taken, and of one for a network of `--data folder` 7/8 of that.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not 1 or 3 planes of its size.
    pub fn input(&self, picture: &Picture) -> Result<Vec<f32>> {
        let fail = |what: String| Error::Config(format!("a picture {what}"));
        let (height, width) = (picture.height, picture.width);
        if !matches!(picture.channels, 1 | 3)
            || picture.data.is_empty()
            || picture.data.len() != picture.channels * height * width
        {
            return Err(fail(format!(
                "of {} channels and {width} x {height} pixels has {} values: it is to be 1 or 3 planes",
                picture.channels,
                picture.data.len()
            )));
        }
        let plane = height * width;
        let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        // Grey is the same in all three.
        let of = |c: usize, i: usize| byte(picture.data[(c % picture.channels) * plane + i]);
        let bytes = (0..plane).flat_map(|i| [0, 1, 2].map(|c| of(c, i)));
        let image = RgbImage::from_raw(width as u32, height as u32, bytes.collect());
        let image = image.ok_or_else(|| fail("has too many pixels".into()))?;
        let mut input = Vec::new();
        self.transform.append(&image, &mut input).map_err(fail)?;
        Ok(input)
    }

    /// As [`Trained::input`], of the picture in a file. It takes less memory than a [`Picture`].
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Data`] if it is no whole picture, or too large.
    pub fn read_input(&self, path: &Path) -> Result<Vec<f32>> {
        let decoded = decode::read(path, Room::of(OF_RGB))?;
        let mut input = Vec::new();
        let image = decoded.image.into_rgb8();
        let appended = self.transform.append(&image, &mut input);
        appended.map_err(|e| Error::data(path, e))?;
        Ok(input)
    }

    /// What the network says of each picture, of any size, grey or colour.
    ///
    /// The first call compiles a program and puts the weights on the device; others take the same one, for up to 32 pictures at
    /// once.
    ///
    /// # Errors
    /// Those of [`Trained::input`] and [`Trained::predict_inputs`].
    ///
    /// ```no_run
    /// use std::path::Path;
    ///
    /// use decorr::Picture;
    /// use decorr::gpu::{AdapterChoice, Gpu};
    /// use decorr::train::Trained;
    ///
    /// # fn main() -> decorr::Result<()> {
    /// let gpu = Gpu::open(&AdapterChoice::default())?;
    /// let mut trained = Trained::open(&gpu, Path::new("runs/a"))?;
    /// for prediction in trained.predict(&[Picture::read(Path::new("cat.png"))?])? {
    ///     for guess in prediction.top(5) {
    ///         println!("{guess}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn predict(&mut self, pictures: &[Picture]) -> Result<Vec<Prediction>> {
        let mut predictions = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(MOST) {
            let inputs: Result<Vec<_>> = pictures.iter().map(|p| self.input(p)).collect();
            predictions.extend(self.predict_inputs(&inputs?)?);
        }
        Ok(predictions)
    }
}
