"""The helps of the commands that take Lightning's options too: what most runs need, without an import of torch.

``COMMAND --help all`` is the parser's own help; a test gives every option here to that parser.
"""

_MORE = """
All options, with those of Lightning:      anomalib-spd {0} --help all
Arguments of a class of model or data:     anomalib-spd {0} --model.help CLASS, --data.help CLASS
The values as a file:                      anomalib-spd {0} ... --print_config
Recipes, and the images that they need:    anomalib-spd recipes list
"""

_TRAINER = """
Lightning's (more by --help all)
  --trainer.max_steps N              length of the training, in steps
  --trainer.max_epochs N             or in epochs; -1 where steps count
  --trainer.accelerator NAME         auto, cpu or gpu
  --trainer.devices N                how many
  --trainer.precision PRECISION      32-true, bf16-mixed, 16-mixed
"""

_RUN = """\
  --seed_everything N                seed of the run; 0 by default
  --ckpt_path FILE                   'last' resumes this run, which is the default; 'none' begins anew
  --checkpoint.every_n_train_steps N how often it is saved
"""

_PRETRAIN = f"""\
usage: anomalib-spd pretrain --config RECIPE --data.root FOLDER [OPTION ...]

Train a backbone to be sensitive to small local differences: images in, a checkpoint out, which 'anomalib-spd backbones add'
gives a name. The same command resumes a run that was interrupted.

  --config RECIPE                    name of a recipe or a file; of several, later ones win
  --data.root FOLDER                 images
  --data.batch_size N                images a step and device
  --data.num_workers N               processes that decode images
  --model.backbone NAME              of the registry or of timm
  --model.eta X                      weight of SPD; 0 is the control
  --trainer.default_root_dir FOLDER  of the run: checkpoint, log, views.png
{_RUN}{_TRAINER}
example: anomalib-spd pretrain --config pretrain/supervised_spd --data.root photographs
"""

_FINETUNE = f"""\
usage: anomalib-spd finetune --config RECIPE --data CLASS --data.root FOLDER --name NAME [OPTION ...]

Adapt a backbone to the normal images of your parts; it is then in the registry under its name. The same command resumes a run
that was interrupted.

  --config RECIPE                    name of a recipe or a file; of several, later ones win
  --data CLASS                       anomalib's data module, such as anomalib.data.Folder or anomalib.data.MVTecAD
  --data.root FOLDER                 of the data set
  --data.category CATEGORY           of the data set
  --name NAME                        of the new backbone; {{category}} in it stands for the category
  --categories LIST                  several, one after the other
  --per UNIT                         'category': a backbone for each; 'dataset': one for all of them
  --model.backbone NAME              that is adapted, of the registry or of timm
  --model.layers LAYERS              that the detector reads
  --holdout X                        share of images that tell whether it helps; 0 takes the trained weights
  --batch_size N                     images a step
  --image_size N                     that images are resized to, pixels; '[HEIGHT, WIDTH]' for long parts
  --white X                          value of white of gray images of more than 8 bits: 4095 of 12 bits
  --num_workers N                    processes that decode images
  --folder FOLDER                    of runs, one folder a name; runs/finetune by default
{_RUN}{_TRAINER}
example: anomalib-spd finetune --config finetune/adapt --data anomalib.data.MVTecAD --data.root MVTecAD \\
             --data.category bottle --name bottle_backbone
"""

_TWOCLASS = f"""\
usage: anomalib-spd twoclass --config RECIPE [OPTION ...]

Train and test a classifier or a segmenter on normal and defective images. The same command resumes a run that was interrupted.

  --config RECIPE                    name of a recipe or a file; of several, later ones win
  --data.root FOLDER                 of VisA, where the recipe reads VisA; of your own images see docs/howto/twoclass.md
  --data.category CATEGORY           of VisA
  --data.train_batch_size N          images a step
  --model.backbone NAME              of the registry or of timm
  --model.steps N                    length of the training
  --trainer.default_root_dir FOLDER  of the run: figures, heatmaps, checkpoints
{_RUN}{_TRAINER}
example: anomalib-spd twoclass --config twoclass/classifier --data.root VisA --data.category pcb1
"""

_BENCHMARK = """\
usage: anomalib-spd benchmark --config RECIPE --data.root FOLDER [OPTION ...]

Measure a grid: backbones x detectors x categories x seeds, each cell a stock anomalib run. The same command resumes a grid that
was interrupted; 'anomalib-spd report' makes a page of its results.

  --config RECIPE                    name of a recipe or a file; of several, later ones win
  --dry-run                          show the cells, those on record, what is missing and about how long it takes
  --data.root FOLDER                 of the data set; one that is missing is downloaded into a folder that is empty
  --backbones.LABEL NAME             add a backbone of the registry or of timm
  --seeds NUMBERS                    of each cell
  --results FOLDER                   of results
  --workers N                        processes at a time
  --threads N                        CPU threads of each; by default an equal share
  --accelerator NAME                 auto, cpu or gpu
  --runner RUNNER                    processes, or ray: a cluster
  --title TEXT                       of the report

All options, and what a grid's file may hold: anomalib-spd benchmark --help all
The grid as a file:                           anomalib-spd benchmark ... --print_config
Recipes, and the images that they need:       anomalib-spd recipes list

example: anomalib-spd benchmark --config benchmark/quick --dry-run
"""

_DEPLOY = """\
usage: anomalib-spd deploy --ckpt_path FILE --data CLASS --output FOLDER [OPTION ...]

Export a trained detector by anomalib, and measure every file beside it on the test images: differences of scores and maps, labels that
flip, metrics with intervals, images a second, memory. The figures are in FOLDER/deploy.json, a page about them in FOLDER/README.md.

  --ckpt_path FILE                   weights/lightning/model.ckpt of a run of anomalib
  --data CLASS                       anomalib's data module, such as anomalib.data.Folder or anomalib.data.MVTecAD
  --data.root FOLDER                 of the data set
  --data.category CATEGORY           of the data set
  --output FOLDER                    to make
  --formats FORMAT ...               of torch, onnx, openvino and openvino-int8; by default all
  --model CLASS                      of the detector, where the run has no config.yaml, such as Patchcore

openvino-int8 is calibrated on the normal training images. ONNX and OpenVINO need more: pip install 'anomalib_spd[deploy]'
All options:                               anomalib-spd deploy --help all
Arguments of a class of data:              anomalib-spd deploy --data.help CLASS

example: anomalib-spd deploy --ckpt_path results/Patchcore/MVTecAD/bottle/latest/weights/lightning/model.ckpt \\
             --data anomalib.data.MVTecAD --data.category bottle --output bottle_deployed
"""

SHORT_HELP = {
    "deploy": _DEPLOY,
    "pretrain": _PRETRAIN + _MORE.format("pretrain"),
    "adapt": (_FINETUNE + _MORE.format("finetune"))
    .replace("finetune --config RECIPE", "adapt")
    .replace("finetune --config finetune/adapt", "adapt")
    .replace("anomalib-spd finetune", "anomalib-spd adapt"),
    "finetune": _FINETUNE + _MORE.format("finetune"),
    "twoclass": _TWOCLASS + _MORE.format("twoclass"),
    "benchmark": _BENCHMARK,
}
