mkdir -p /f/code/REVISION
git -C CHECKOUT archive --format=tar REVISION | tar --extract --directory=/f/code/REVISION
sbatch --parsable --job-name=admd --nodes=1 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 --time=24:00:00 --output=/f/%j.log --chdir=/f/code/REVISION /f/code/REVISION/launch/gpu/train.sbatch 50 env PYTHONPATH=/f/code/REVISION HALLUJAX_REVISION=REVISION PYTHONUNBUFFERED=1 apptainer exec --nv i.sif python3 -m hallujax.cli train --distributed --start-timeout=1800 --config=configs/admd.py:mocap_rgbd,cross_subject '--workdir=/runs/a run'
tail --follow=name --retry --lines=+1 --quiet /f/JOB.log
scontrol --oneliner show job JOB
scancel JOB
