mkdir -p '/home/me/a folder/code/REVISION'
git -C CHECKOUT archive --format=tar REVISION | tar --extract '--directory=/home/me/a folder/code/REVISION'
python3.11 -m venv '/home/me/a folder/environment'
'/home/me/a folder/environment/bin/pip' install --quiet '/home/me/a folder/code/REVISION[video,cuda12]'
sbatch --parsable --job-name=admd --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 --time=24:00:00 '--output=/home/me/a folder/%j.log' '--chdir=/home/me/a folder/code/REVISION' --partition=gpu '/home/me/a folder/code/REVISION/launch/gpu/train.sbatch' 50 env 'PYTHONPATH=/home/me/a folder/code/REVISION' HALLUJAX_REVISION=REVISION PYTHONUNBUFFERED=1 '/home/me/a folder/environment/bin/python' -m hallujax.cli train --distributed --start-timeout=1800 --config=configs/admd.py:mocap_rgbd,cross_subject '--workdir=/runs/a run'
tail --follow=name --retry --lines=+1 --quiet '/home/me/a folder/JOB.log'
scontrol --oneliner show job JOB
scancel JOB
