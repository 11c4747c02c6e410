git -C CHECKOUT archive --format=tar REVISION | docker build --tag=registry/hallujax:REVISION --file=launch/Dockerfile --build-arg=EXTRAS=video,gcs,tpu --build-arg=REVISION=REVISION -
docker push registry/hallujax:REVISION
xpk workload create --cluster=my-cluster --project=my-project --zone=us-east5-b --workload=admd --tpu-type=v6e-16 --num-slices=1 --docker-image=registry/hallujax:REVISION --max-restarts=50 --termination-grace-period-seconds=120 --storage=runs '--command=exec hallujax train --distributed --start-timeout=1800 --config=configs/admd.py:mocap_rgbd,cross_subject '"'"'--workdir=/runs/a run'"'"''
kubectl logs --namespace=default --selector=jobset.sigs.k8s.io/jobset-name=admd --follow --prefix --ignore-errors --tail=-1 --max-log-requests=1000
kubectl get jobset admd --namespace=default --ignore-not-found '--output=jsonpath={.status.restarts}/{.status.terminalState}'
xpk workload delete --cluster=my-cluster --project=my-project --zone=us-east5-b --workload=admd --force
