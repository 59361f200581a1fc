def test_x(db):
    from tenants.models import Tenant
    assert Tenant.objects.count()==0
