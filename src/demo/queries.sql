-- 過去1年のログイン失敗を調査
SELECT
    tenant_id,
    user_id,
    created_at,
    detail
FROM idp_archive.security_event
WHERE year = '2024'
  AND type = 'login_failure'
  AND tenant_id = 'your-tenant-id'
ORDER BY created_at DESC
LIMIT 100;

-- テナント別のイベント集計
SELECT
    tenant_id,
    type,
    COUNT(*) as event_count
FROM idp_archive.security_event
WHERE year = '2024' AND month = '06'
GROUP BY tenant_id, type
ORDER BY event_count DESC;

-- 不審なIPアドレスの検出
SELECT
    ip_address,
    COUNT(DISTINCT user_id) as affected_users,
    COUNT(*) as attempt_count
FROM idp_archive.security_event
WHERE type = 'login_failure'
  AND year >= '2024'
GROUP BY ip_address
HAVING COUNT(*) > 100
ORDER BY attempt_count DESC;
