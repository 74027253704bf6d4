from kernel import *
import time, pprint
from vxlab.ops import *
import kernel
place,directory,programs=kernel.place,kernel.directory,kernel.programs
pytestmark = KERNEL
@in_child
def test_x(place):
    t=time.monotonic()
    place.enter()
    a=place.node("a","demo"); b=place.node("b","demo")
    print(time.monotonic()-t)
    todo=[AddBridge(name="cbr0"),AddVeth(name="vethlocal",peer="vethNS",peer_ns="demo"),SetMaster(name="vethlocal",master="cbr0"),SetUp(name="vethlocal"),SetUp(name="cbr0"),AddAddress(name="cbr0",address="10.5.1.1/24")]
    by_netlink(a,todo)
    by_script(b,todo)
    t=time.monotonic()
    ra,rb=raw(a,macs=False),raw(b,macs=False)
    print(time.monotonic()-t)
    pprint.pprint(ra)
    assert ra==rb
