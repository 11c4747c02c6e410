gcloud compute tpus queued-resources create admd --project=my-project --zone=us-east5-b --node-id=admd --accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e --spot
gcloud compute tpus queued-resources list --project=my-project --zone=us-east5-b '--filter=name~/queuedResources/admd$' '--format=value(state.state)'
git -C CHECKOUT archive --format=tar REVISION --output=hallujax.tar
gcloud compute tpus tpu-vm scp hallujax.tar admd:hallujax.tar --project=my-project --zone=us-east5-b --worker=all
gcloud compute tpus tpu-vm ssh admd --project=my-project --zone=us-east5-b --worker=all '--command=rm -rf hallujax && mkdir hallujax && tar -xf hallujax.tar -C hallujax && bash hallujax/launch/tpu/worker.sh install'
gcloud compute tpus tpu-vm ssh admd --project=my-project --zone=us-east5-b --worker=all '--command=mkdir -p ~/runs && gcsfuse '"'"'my bucket'"'"' ~/runs'
gcloud compute tpus tpu-vm ssh admd --project=my-project --zone=us-east5-b --worker=all '--command=bash hallujax/launch/tpu/worker.sh start REVISION train --distributed --start-timeout=1800 --config=configs/admd.py:mocap_rgbd,cross_subject '"'"'--workdir=/runs/a run'"'"''
gcloud compute tpus tpu-vm ssh admd --project=my-project --zone=us-east5-b --worker=all '--command=bash hallujax/launch/tpu/worker.sh watch'
gcloud compute tpus tpu-vm ssh admd --project=my-project --zone=us-east5-b --worker=all '--command=bash hallujax/launch/tpu/worker.sh stop'
gcloud compute tpus queued-resources delete admd --project=my-project --zone=us-east5-b --force --quiet
